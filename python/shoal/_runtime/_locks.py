# SPDX-License-Identifier: Apache-2.0
"""Locks among the threads of this process that a Ctrl-C cannot leave held.

CPython 3.14 looks for signals between the return of a built-in `__enter__` and the body of the
`with`: an exception raised there leaves the lock held for ever. (3.13 and 3.15 do not.) There the
`__enter__` is a Python function, after whose return nothing is looked for; what comes while it runs
it cleans up itself. `__exit__` stays the built-in one, which has let go before anything is raised.

The child of a fork has one thread, and finds held for ever what other threads of its parent held:
`renew_in_children`.
"""

from __future__ import annotations

import _thread
import os
import sys
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

if sys.version_info[:2] == (3, 14):

    class RLock(_thread.RLock):
        """A `threading.RLock` whose `with` is held or not, whatever a signal handler raises."""

        def __enter__(self) -> bool:
            depth: int = self._recursion_count()  # type: ignore[attr-defined]
            try:
                return self.acquire()
            except BaseException:
                if self._recursion_count() > depth:  # type: ignore[attr-defined]
                    self.release()
                raise

    Lock = RLock  # nobody here relies on waiting for himself
else:
    Lock = threading.Lock
    RLock = threading.RLock


def renew_in_children(owner: object, name: str, make: Callable[[], object]) -> None:
    """Set the attribute `name` of a module or class, a lock, to `make()` in each child of a fork.

    A new lock, not the old one made free: the thread that forks may itself hold the old one, and
    lets go of it later.
    """

    def renew() -> None:
        setattr(owner, name, make())

    os.register_at_fork(after_in_child=renew)
