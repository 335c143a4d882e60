# SPDX-License-Identifier: Apache-2.0
"""Starts the standard library's fork server warm: with the modules that its children would import.

A child of a plain fork server spends most of its time on imports (pkgutil and typing, for `runpy`,
and the imports of the main module) and on compiling the main module, again in each child. So while
`ForkServer` starts its process, the preloaded modules are the user's and then `_fork_server_warm`.
That module imports once what this process has imported from the standard library, compiles the main
module, and freezes the garbage collector's generations. The user's list, and everything else that
the class does (one server per program, restarted when it was killed, its children's exit statuses),
do not change.

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
# Environment variables for the fork server, set only while it starts: the main module's file, and
# the modules to import. Modules of other packages are left to the children, because their import
# may start threads.
MAIN, MODULES = "SHOAL_MAIN", "SHOAL_MODULES"
_told: list[Variables] = []
_starting = _locks.RLock()
_locks.renew_in_children(sys.modules[__name__], "_starting", _locks.RLock)
# The modules of shoal that workers import and whose import starts no thread and joins no session.
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
    """Add the result of `variables()` to the environment of each fork server that starts."""
    _told.append(variables)


def patch(module: Any) -> None:
    """Patch `module`, which is `multiprocessing.forkserver`. Calling it again changes nothing."""
    stock: Any = module.ForkServer.ensure_running
    if hasattr(stock, "_shoal"):
        return

    def ensure_running(self: Any) -> None:
        if _runs(self._forkserver_pid):
            stock(self)
            return
        with _starting:  # one thread at a time changes and restores the environment and the list
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
    """Replaces the module `resource_tracker` while the fork server is started, so that the tracker
    is not started then. The tracker is a separate interpreter, and while it boots it would take
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
        return False  # an ancestor that forked this process started it: the stock code decides


def _warmth() -> dict[str, str]:
    """The variables MODULES and, if children run the main module's file as `__mp_main__`, MAIN."""
    found = {MODULES: ",".join(_quiet_modules())}
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    if isinstance(file, str) and getattr(main, "__spec__", None) is None:  # by -m: by its name
        found[MAIN] = os.path.abspath(file)
    return found


def _quiet_modules() -> list[str]:
    """The modules of the standard library that this process has imported and that start no thread,
    in the order of import; then the modules of shoal that workers need.
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
