# SPDX-License-Identifier: Apache-2.0
"""Passes shoal's state to children that start as fresh interpreters: under spawn, and from the fork
server.

`multiprocessing.spawn.get_preparation_data` is patched. A child reads its result before it imports
the program's main module. shoal adds the child's ancestors, the session if there is one
(`_session.py`), and, while shoal is installed, the name of the function that installs it
(`carry_swap`; this layer does not know that function).

Module state: `_starting` (by thread, how its next child starts), `_carrying` (whether
`carry_session()` was called), `_entrance` (see `carry_swap`).
"""

from __future__ import annotations

import sys
from _thread import _local

from shoal._runtime import _leftovers
from shoal._runtime._import_hook import patch_now_or_later

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

_starting = _local()
_carrying = False


def _no_entrance() -> str:
    return ""


_entrance: Callable[[], str] = _no_entrance

# Runs in a child while it unpickles its preparation data, before `sys.path` is the parent's.
_CHILD = """
import sys
try:
    from shoal._runtime import _children
except ImportError:
    sys.path.append({folder!r})
    try:
        from shoal._runtime import _children
    finally:
        sys.path.remove({folder!r})
_children.enter({entrance!r}, carried, lineage)
"""


def carry_swap(entrance: Callable[[], str]) -> None:
    """Have children first call the function that `entrance()` names: "module:function", or "" for
    none.
    """
    global _entrance
    _entrance = entrance


def carry_session() -> None:
    """Make children of spawn and forkserver join the session before they import the main module."""
    global _carrying
    if _carrying:
        return
    _carrying = True
    from shoal._runtime import _fork_server, _session

    patch_now_or_later("multiprocessing.spawn", patch_spawn)
    _fork_server.tell(_session.announcement)
    patch_now_or_later("multiprocessing.forkserver", _fork_server.patch)


def start_fork_server() -> None:
    """Start the fork server if it does not run. Called before anything else is imported or done for
    a pool: it takes as long to start as an interpreter, and the pool can be made meanwhile.

    Without an importable main module, the workers do not come from the fork server
    (`_dropin/_engine.py`), and it is not started.
    """
    if getattr(sys.modules.get("__main__"), "__file__", None) is None:
        return
    from multiprocessing import forkserver, spawn

    from shoal._runtime import _limits
    from shoal._runtime._native import core

    spawn._check_not_importing_main()  # type: ignore[attr-defined]
    with _limits.named("cannot start the fork server"):
        core.incarnation()  # makes the session if there is none: the server must join it
        carry_session()
        forkserver.ensure_running()


def patch_spawn(module: ModuleType) -> None:
    """Add the swap and the session to the preparation data, which a fresh child reads first."""
    stock = module.get_preparation_data
    if getattr(stock, "_shoal", False):
        return

    def get_preparation_data(name: str) -> dict[str, Any]:
        data: dict[str, Any] = stock(name)
        if getattr(_starting, "without_main", False):
            data = {key: v for key, v in data.items() if not key.startswith("init_main_from")}
        return {"shoal": _InChild(), **data} if _entrance() or _has_session() else data

    get_preparation_data._shoal = True  # type: ignore[attr-defined]
    get_preparation_data.__wrapped__ = stock  # type: ignore[attr-defined]
    module.get_preparation_data = get_preparation_data  # type: ignore[attr-defined]


class main_module_left_out:
    """`with main_module_left_out():` children that this thread starts do not get the main module in
    their preparation data. They import it later, where an error can be reported.
    """

    def __enter__(self) -> None:
        _starting.without_main = True

    def __exit__(self, *exception: object) -> None:
        _starting.without_main = False


def _has_session() -> bool:
    """Whether this process has a session that the child must join. Imports nothing."""
    session: Any = sys.modules.get("shoal._runtime._session")
    return session is not None and session.core.session_identity() is not None


class _InChild:
    """Pickles as code that calls `enter` when it is unpickled. The child need not be able to import
    shoal by itself.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        folder = os.path.abspath(__file__).removesuffix("/shoal/_runtime/_children.py")
        code = _CHILD.format(folder=folder, entrance=_entrance())
        return exec, (code, {"carried": _what_to_join(), "lineage": _leftovers.lineage()})


def _what_to_join() -> Any:
    """The session's identity and descriptor for the child that is being started, or None."""
    if not _has_session():
        return None
    session: Any = sys.modules["shoal._runtime._session"]
    popen = session.spawning_popen()
    return None if popen is None else session.carrier_for(popen).contents()


def enter(entrance: str, carried: tuple[Any, Any] | None, lineage: list[str]) -> None:
    """In a fresh child: record its ancestors, call the entrance function, join the session."""
    _leftovers.come_from(lineage)
    if entrance:
        from shoal._runtime import _imports

        module, _, name = entrance.partition(":")
        getattr(_imports.load(module), name)()
    if carried is not None:
        from shoal._runtime import _session

        _session.join(*carried)
        carry_session()
