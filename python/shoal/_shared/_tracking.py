# SPDX-License-Identifier: Apache-2.0
"""Shared memory blocks and the standard library's resource tracker, which removes what a killed
program leaves behind.

The tracker is told of a block by the process that makes it, and by no process that only attaches:
that one's end is not the block's. Who attaches and asks for it (`track=True`) is tracked all the
same.

A child of fork whose parent has no tracker yet would start one of its own, which would remove the
child's blocks when the child ends. Such a block is left to its owner record
(`_runtime/_leftovers.py`).

Module state: `_made`, the names that this process has told its tracker of; `_attached`, the last
names that it attached to without; `_exit_registered`.
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
    """Have the tracker remove the block when this program dies. False: it is not told."""
    stock = _tracker()
    if stock._resource_tracker._fd is None and _leftovers.has_living_ancestor():
        return False
    stock.register(name, _KIND)
    _made[name] = inode
    _attached.pop(name, None)
    _register_at_exit()
    return True


def note_attached(name: str) -> None:
    """This process uses the block and has not told the tracker."""
    if name not in _made:
        _attached[name] = None
        if len(_attached) > _MOST:
            del _attached[next(iter(_attached))]


def forget(name: str) -> None:
    """The block has been removed: by whomever it was made, the tracker need not do it."""
    _attached.pop(name, None)
    _made.pop(name, None)
    stock = _tracker()
    if stock._resource_tracker._fd is not None:
        # Told first, it can't complain about a name that it does not know.
        stock.register(name, _KIND)
        _stock_unregister()(name, _KIND)


def unregister(name: str, rtype: str) -> None:
    """`resource_tracker.unregister`, but for blocks that this process attached to: programs call
    it to undo what the standard library does there, and that has not happened here.
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
    """What another program has removed is no leak."""
    for name, inode in list(_made.items()):
        try:
            if os.stat(_leftovers.FOLDER + name).st_ino == inode:
                continue
        except OSError:
            pass
        forget(name)
