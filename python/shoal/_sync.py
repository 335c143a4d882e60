# SPDX-License-Identifier: Apache-2.0
"""Locks and their kin in shared memory: `shoal.Lock` and so on.

Thin classes over the C types of `shoal._core`: signatures, pickling, repr. Every method that a
program calls often is the C type's own. They may be made at any time, passed to any process of the
session (as arguments, through queues, as results), and are freed by the last process that has them.
What each promises: docs/reference/sync.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shoal import _session
from shoal._native import core

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["BoundedSemaphore", "Condition", "Event", "Lock", "RLock", "Semaphore"]


def _check_death(on_owner_death: str) -> bool:
    if on_owner_death not in ("warn", "raise"):
        raise ValueError(f'on_owner_death is "warn" or "raise", not {on_owner_death!r}')
    return on_owner_death == "raise"


def _owner(lock: Any) -> str:
    """For reprs: who has the lock."""
    pid = lock.owner
    if pid == 0:
        return "free"
    return f"locked by process {pid}" + (", this thread" if lock._is_mine() else "")


class Lock(core.Lock):
    """A lock between processes and threads. Any process of the session may release it.

    Where its owner died, the next taker gets it and is told: `owner_died` is True, and a warning is
    given, or OwnerDied is raised (and the lock let go) if made with `on_owner_death="raise"`.

    >>> import shoal
    >>> lock = shoal.Lock()
    >>> with lock:
    ...     lock.locked(), lock.acquire(timeout=0.01)
    (True, False)
    """

    def __new__(cls, *, on_owner_death: str = "warn") -> Self:
        return core.Lock.__new__(cls, 0, _check_death(on_owner_death))

    def __reduce__(self) -> tuple[Any, ...]:
        return _session.reduce_shared(_lock_at, self, type(self), self._raises)

    def __repr__(self) -> str:
        return f"<shoal.{type(self).__name__} {_owner(self)}>"


class RLock(core.RLock):
    """A lock that the thread which has it may take again.

    >>> import shoal
    >>> lock = shoal.RLock()
    >>> with lock, lock:
    ...     lock.locked()
    True
    """

    def __new__(cls, *, on_owner_death: str = "warn") -> Self:
        return core.RLock.__new__(cls, 0, _check_death(on_owner_death))

    def __reduce__(self) -> tuple[Any, ...]:
        return _session.reduce_shared(_lock_at, self, type(self), self._raises)

    def __repr__(self) -> str:
        return f"<shoal.{type(self).__name__} {_owner(self)}>"


def _lock_at(handle: int, cls: Any, raises: bool) -> Any:
    base: Any = core.RLock if issubclass(cls, core.RLock) else core.Lock
    return base.__new__(cls, handle, raises)


class Semaphore(core.Semaphore):
    """Permits, taken and given back by any process. A permit has no owner: the dead keep theirs.

    >>> import shoal
    >>> places = shoal.Semaphore(2)
    >>> places.acquire(), places.acquire(), places.acquire(block=False)
    (True, True, False)
    >>> places.release(2)
    >>> places.value
    2
    """

    def __new__(cls, value: int = 1) -> Self:
        return core.Semaphore.__new__(cls, _check_permits(value))

    def __reduce__(self) -> tuple[Any, ...]:
        return _session.reduce_shared(_semaphore_at, self, type(self))

    def __repr__(self) -> str:
        return f"<shoal.{type(self).__name__} value={self.value}>"


class BoundedSemaphore(Semaphore):
    """A semaphore whose permits never exceed those it was made with: ValueError instead.

    >>> import shoal
    >>> shoal.BoundedSemaphore(1).release()
    Traceback (most recent call last):
    ValueError: semaphore or lock released too many times
    """

    def __new__(cls, value: int = 1) -> Self:
        return core.Semaphore.__new__(cls, _check_permits(value), value)


def _check_permits(value: int) -> int:
    if value < 0 or value > 0x7FFFFFFF:
        raise OSError(22, "Invalid argument: a semaphore has 0 to 2**31 - 1 permits")
    return value


def _semaphore_at(handle: int, cls: Any) -> Any:
    return core.Semaphore.__new__(cls, 0, 0, handle)


class Event(core.Event):
    """A flag to wait for.

    >>> import shoal
    >>> event = shoal.Event()
    >>> event.wait(timeout=0.01)
    False
    >>> event.set()
    >>> event.wait()
    True
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _session.reduce_shared(_event_at, self, type(self))

    def __repr__(self) -> str:
        return f"<shoal.{type(self).__name__} {'set' if self.is_set() else 'unset'}>"


def _event_at(handle: int, cls: Any) -> Any:
    return core.Event.__new__(cls, handle)


class Waiting:
    """`wait_for`, for conditions."""

    __slots__ = ()
    wait: Callable[..., bool]

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """Wait until `predicate()` is true; returns its last value."""
        end = None if timeout is None else time.monotonic() + timeout
        while not (result := predicate()):
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                return result
            self.wait(left)
        return result


class Condition(core.Condition, Waiting):
    """Wait to be notified by another process, with a Lock or RLock (the default).

    >>> import shoal
    >>> condition = shoal.Condition()
    >>> with condition:
    ...     condition.notify(), condition.wait(timeout=0.01)
    (0, False)
    """

    def __new__(cls, lock: Any = None) -> Self:
        return core.Condition.__new__(cls, RLock() if lock is None else lock)

    def __reduce__(self) -> tuple[Any, ...]:
        return _session.reduce_shared(_condition_at, self, type(self), self._lock)

    def __repr__(self) -> str:
        return f"<shoal.{type(self).__name__} with {self._lock!r}, {self.waiters} waiting>"


def _condition_at(handle: int, cls: Any, lock: Any) -> Any:
    return core.Condition.__new__(cls, lock, handle)


_session.carry_session()
