# SPDX-License-Identifier: Apache-2.0
"""The standard library's fork server, started warm: what its children would import is there already.

Most of the time that a child of a plain fork server needs goes into imports (pkgutil and typing,
for `runpy`) and into compiling the main module, anew in each child. So while `ForkServer` starts its
process, the preloaded modules are the user's and then `_fork_server_warm`, which imports that once,
compiles the main module, and freezes the garbage collector's generations. The user's list, and what
else the class does (one server per program, started again when it was killed, its children's exit
statuses), stay as they are.

A fork server that cannot import shoal (its folder is on `sys.path` of the parent only) leaves it out.
Design: docs/design/drop_in.md
"""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Any

WARM = "shoal._fork_server_warm"
MAIN = "SHOAL_MAIN"  # for the fork server only, while it starts: the main module's file


def patch(module: ModuleType) -> None:
    """`module` is `multiprocessing.forkserver`. Calling it again changes nothing."""
    stock: Any = module.ForkServer.ensure_running
    if getattr(stock, "_shoal_warm", False):
        return

    def ensure_running(self: Any) -> None:
        preload, self._preload_modules = self._preload_modules, [*self._preload_modules, WARM]
        main = _main_file()
        if main is not None:
            os.environ[MAIN] = main
        try:
            stock(self)
        finally:
            self._preload_modules = preload
            os.environ.pop(MAIN, None)

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
