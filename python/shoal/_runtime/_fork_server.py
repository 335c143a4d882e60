# SPDX-License-Identifier: Apache-2.0
"""The standard library's fork server, started warm: what its children would import is there.

Most of the time that a child of a plain fork server needs goes into imports (pkgutil and typing,
for `runpy`, and what the main module asks for) and into compiling the main module, anew in each
child. So while `ForkServer` starts its process, the preloaded modules are the user's and then
`_fork_server_warm`, which imports once what this process has of the standard library, compiles the
main module, and freezes the garbage collector's generations. The user's list, and what
else the class does (one server per program, started again when it was killed, its children's exit
statuses), stay as they are.

A fork server that cannot import shoal (its folder is on `sys.path` of the parent only) starts cold.
Design: docs/design/drop_in.md
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from shoal._runtime import _locks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

Variables = Callable[[], dict[str, str]]

WARM = "shoal._install._fork_server_warm"
# For the fork server only, while it starts: the main module's file, and modules that this process
# has. Those of other packages are left to the children: their import may start threads.
MAIN, MODULES = "SHOAL_MAIN", "SHOAL_MODULES"
_told: list[Variables] = []
_starting = _locks.RLock()
_locks.renew_in_children(sys.modules[__name__], "_starting", _locks.RLock)
# What workers of pools import of shoal, and what makes neither a thread nor a member of a session.
_OURS = tuple(
    f"shoal.{name}"
    for name in (
        "multiprocessing",
        "_runtime._native",
        "_dropin._processes",
        "_dropin._startup",
        "_workers._worker",
        "_workers._context",
        "_workers._worker_hooks",
        "_pickling._definitions",
        "_pickling._applied",
        "_pickling._pickler",
    )
)
_NOT_QUIET = ("antigravity", "this", "idlelib", "tkinter", "readline", "site", "sitecustomize")


def tell(variables: Variables) -> None:
    """Have each fork server that starts find what `variables()` gives in its environment."""
    _told.append(variables)


def patch(module: Any) -> None:
    """`module` is `multiprocessing.forkserver`. Calling it again changes nothing."""
    stock: Any = module.ForkServer.ensure_running
    if hasattr(stock, "_shoal"):
        return

    def ensure_running(self: Any) -> None:
        if _runs(self._forkserver_pid):
            stock(self)
            return
        with _starting:  # the environment and the list are put back by who changed them
            preload, environment = self._preload_modules, {}
            for variables in _told:
                environment.update(variables())
            self._preload_modules = [*preload, WARM]
            os.environ.update(environment)
            tracker = module.resource_tracker
            module.resource_tracker = _StartedLater(tracker)
            try:
                stock(self)
            finally:
                module.resource_tracker = tracker
                self._preload_modules = preload
                for name in environment:
                    os.environ.pop(name, None)

    ensure_running._shoal = True  # type: ignore[attr-defined]
    ensure_running.__wrapped__ = stock  # type: ignore[attr-defined]
    ensure_running.__doc__ = stock.__doc__
    module.ForkServer.ensure_running = ensure_running
    module.ensure_running = module._forkserver.ensure_running


class _StartedLater:
    """Stands for the module `resource_tracker` while the fork server is started, and does not start
    the tracker then. The tracker is an interpreter of its own, and while it boots it would take
    processor time from the fork server and from this program. The standard library starts it when
    it asks the fork server for the first child, which is early enough.
    """

    def __init__(self, module: Any) -> None:
        self._module = module

    def ensure_running(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def _runs(pid: int | None) -> bool:
    try:
        return pid is not None and not os.waitid(
            os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT
        )
    except ChildProcessError:
        return False  # started by a process that this one was forked from: the stock code decides


def _warmth() -> dict[str, str]:
    """The main module's file, if children run one as `__mp_main__`, and what to import."""
    found = {MODULES: ",".join(_quiet_modules())}
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    if isinstance(file, str) and getattr(main, "__spec__", None) is None:  # by -m: by its name
        found[MAIN] = os.path.abspath(file)
    return found


def _quiet_modules() -> list[str]:
    """What this process has imported of the standard library that starts no thread, in that order;
    then what workers need of shoal.
    """
    standard = sys.stdlib_module_names
    quiet = [
        name
        for name in list(sys.modules)
        if (top := name.partition(".")[0]) in standard and top not in _NOT_QUIET and top[0] != "_"
    ]
    ours = [name for name in _OURS if name in sys.modules or name != "shoal.multiprocessing"]
    return quiet + ours


tell(_warmth)
