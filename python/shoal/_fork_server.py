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
from typing import Any

WARM = "shoal._fork_server_warm"
# For the fork server only, while it starts: the main module's file, and modules that this process
# has. Those of other packages are left to the children: their import may start threads.
MAIN, MODULES = "SHOAL_MAIN", "SHOAL_MODULES"
_NOT_QUIET = ("antigravity", "this", "idlelib", "tkinter", "readline", "site", "sitecustomize")


def patch(module: Any) -> None:
    """`module` is `multiprocessing.forkserver`. Calling it again changes nothing."""
    stock: Any = module.ForkServer.ensure_running
    if getattr(stock, "_shoal_warm", False):
        return

    def ensure_running(self: Any) -> None:
        preload, self._preload_modules = self._preload_modules, [*self._preload_modules, WARM]
        main = _main_file()
        if main is not None:
            os.environ[MAIN] = main
        os.environ[MODULES] = ",".join(_quiet_modules())
        try:
            stock(self)
        finally:
            self._preload_modules = preload
            os.environ.pop(MAIN, None)
            os.environ.pop(MODULES, None)

    ensure_running._shoal_warm = True  # type: ignore[attr-defined]
    ensure_running.__wrapped__ = stock  # type: ignore[attr-defined]
    ensure_running.__doc__ = stock.__doc__
    module.ForkServer.ensure_running = ensure_running
    module.ensure_running = module._forkserver.ensure_running


def _main_file() -> str | None:
    """The file that children run as `__mp_main__`, if the main module is one."""
    main = sys.modules.get("__main__")
    if getattr(main, "__spec__", None) is not None:
        return None  # run by -m: imported by name
    file = getattr(main, "__file__", None)
    return os.path.abspath(file) if isinstance(file, str) else None


def _quiet_modules() -> list[str]:
    """What this process has imported of the standard library and of shoal that neither starts a
    thread nor joins a session, in that order.
    """
    standard = sys.stdlib_module_names
    return [
        name
        for name in list(sys.modules)
        if name in ("shoal.multiprocessing", "shoal._native")
        or ((top := name.partition(".")[0]) in standard and top not in _NOT_QUIET)
    ]
