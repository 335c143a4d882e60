# SPDX-License-Identifier: Apache-2.0
"""Registers shared memory blocks with the standard library's resource tracker, which removes the
blocks of a killed program.

The process that makes a block registers it. A process that only attaches does not, because the
block must not be removed when that process ends; with `track=True` it registers the block anyway.

A forked child whose parent has no tracker yet would start its own, which would remove the child's
blocks when the child ends. So such a block is not registered, and its owner record serves instead
(`_runtime/_leftovers.py`).

Module state: `_made`, the names that this process has registered; `_attached`, the last names that
it attached to without registering; `_exit_registered`.
Design: docs/design/shared_memory.md
"""

from __future__ import annotations

import os

from shoal._runtime import _leftovers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_KIND = "shared_memory"
_MOST = 4096
_made: dict[str, int] = {}  # name -> inode
_attached: dict[str, None] = {}
_exit_registered = False


def _tracker() -> Any:
    import multiprocessing.resource_tracker as stock

    return stock


def _stock_unregister() -> Any:
    function = _tracker().unregister
    return getattr(function, "__wrapped__", function)


def track(name: str, inode: int) -> bool:
    """Register the block, so that the tracker removes it when this program dies. False: it was not
    registered.
    """
    stock = _tracker()
    if stock._resource_tracker._fd is None and _leftovers.has_living_ancestor():
        return False
    stock.register(name, _KIND)
    _made[name] = inode
    _attached.pop(name, None)
    _register_at_exit()
    return True


def note_attached(name: str) -> None:
    """Record that this process uses the block without having registered it."""
    if name not in _made:
        _attached[name] = None
        if len(_attached) > _MOST:
            del _attached[next(iter(_attached))]


def forget(name: str) -> None:
    """The block has been removed, so the tracker need not do it, whichever process made it."""
    _attached.pop(name, None)
    _made.pop(name, None)
    stock = _tracker()
    if stock._resource_tracker._fd is not None:
        # Register first: the tracker complains when it unregisters an unknown name.
        stock.register(name, _KIND)
        _stock_unregister()(name, _KIND)


def unregister(name: str, rtype: str) -> None:
    """`resource_tracker.unregister`, except that it ignores blocks that this process attached to.
    Programs call it to undo the registration that the standard library makes when attaching, and
    shoal makes none.
    """
    if rtype != _KIND or name not in _attached:
        _stock_unregister()(name, rtype)


def _register_at_exit() -> None:
    global _exit_registered
    if not _exit_registered:
        _exit_registered = True
        import atexit

        atexit.register(_forget_what_is_gone)
        os.register_at_fork(after_in_child=_made.clear)


def _forget_what_is_gone() -> None:
    """Unregister blocks that another program has removed: they are not leaks."""
    for name, inode in list(_made.items()):
        try:
            if os.stat(_leftovers.FOLDER + name).st_ino == inode:
                continue
        except OSError:
            pass
        forget(name)
