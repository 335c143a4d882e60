# SPDX-License-Identifier: Apache-2.0
"""Locks between the threads of this process that a Ctrl-C cannot leave held.

CPython 3.14 checks for signals between the return of a built-in `__enter__` and the body of the
`with` block; an exception raised there leaves the lock held for ever. (3.13 and 3.15 do not check
there.) So on 3.14 `__enter__` is a Python function: there is no check after its return, and it
handles an exception during its run itself. `__exit__` is the built-in one, which has released the
lock before anything is raised.

A forked child has only one thread, so a lock that another thread of its parent held is never
released there. `renew_in_children` replaces such locks.
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
        """A `threading.RLock` whose `with` statement leaves no lock held, whatever a signal handler
        raises.
        """

        def __enter__(self) -> bool:
            depth: int = self._recursion_count()  # type: ignore[attr-defined]
            try:
                return self.acquire()
            except BaseException:
                if self._recursion_count() > depth:  # type: ignore[attr-defined]
                    self.release()
                raise

    Lock = RLock  # no code here relies on a thread blocking on its own lock
else:
    Lock = threading.Lock
    RLock = threading.RLock


def renew_in_children(owner: object, name: str, make: Callable[[], object]) -> None:
    """Set the attribute `name` (a lock) of a module or class to `make()` in each forked child.

    It is a new lock, not the old one released: the thread that forks may itself hold the old one,
    and releases it later.
    """

    def renew() -> None:
        setattr(owner, name, make())

    os.register_at_fork(after_in_child=renew)
