# SPDX-License-Identifier: Apache-2.0
"""Locks and other synchronization objects in shared memory: `shoal.Lock` and so on.

Thin classes over the C types of `shoal._core`: signatures, pickling, repr. The C types implement
every method that a program calls often. The objects may be made at any time and passed to any
process of the session (as arguments, through queues, as results). The last process that has an
object frees it.
Guarantees of each class: docs/reference/sync.md.
"""

from __future__ import annotations

import errno
import operator
import time
from collections.abc import Callable

from shoal._runtime import _children, _session
from shoal._runtime._native import core
from shoal._runtime._public import public

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from typing_extensions import Self

__all__ = [
    "Atomic",
    "Barrier",
    "BoundedSemaphore",
    "Condition",
    "Event",
    "Flag",
    "Lock",
    "RLock",
    "Semaphore",
]


def _check_death(on_owner_death: str) -> bool:
    if on_owner_death not in ("warn", "raise"):
        raise ValueError(f'on_owner_death must be "warn" or "raise", not {on_owner_death!r}')
    return on_owner_death == "raise"


def _owner(lock: Any) -> str:
    """The owner of a lock, for reprs."""
    pid = lock.owner
    if pid == 0:
        return "free"
    return f"locked by process {pid}" + (", this thread" if lock._is_mine() else "")


@public
class Lock(core.Lock):
    """A lock between processes and threads. Any process of the session may release it.

    If its owner died, the next thread that acquires it gets it and is told: `owner_died` is True,
    and a warning is issued. With `on_owner_death="raise"` OwnerDied is raised instead, and the lock
    is released.

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


@public
class RLock(core.RLock):
    """A lock that its owner thread may acquire again.

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


@public
class Semaphore(core.Semaphore):
    """Permits that any process may acquire and release. A permit has no owner, so a process that
    dies does not return its permits.

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


@public
class BoundedSemaphore(Semaphore):
    """A semaphore that raises ValueError if more permits are released than it was made with.

    >>> import shoal
    >>> shoal.BoundedSemaphore(1).release()
    Traceback (most recent call last):
    ValueError: semaphore or lock released too many times
    """

    def __new__(cls, value: int = 1) -> Self:
        return core.Semaphore.__new__(cls, _check_permits(value), value)


def _check_permits(value: int) -> int:
    permits = operator.index(value)
    if permits > 0x7FFFFFFF:
        raise OverflowError(f"a semaphore has 0 to 2**31 - 1 permits, not {permits}")
    if permits < 0:
        text = f"Invalid argument: a semaphore has 0 to 2**31 - 1 permits, not {permits}"
        raise OSError(errno.EINVAL, text)
    return permits


def _semaphore_at(handle: int, cls: Any) -> Any:
    return core.Semaphore.__new__(cls, 0, 0, handle)


@public
class Event(core.Event):
    """A flag that threads and processes can wait for.

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
    """Adds `wait_for` to conditions."""

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


@public
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


@public
class Barrier(core.Barrier):
    """Wait until `parties` processes or threads have arrived; then the barrier can be used again.

    `wait` returns the numbers from 0 to parties - 1, each to one party; the last party to arrive
    runs `action` first. A party that dies while waiting breaks the barrier: the others get
    BrokenBarrierError, as after a timeout.

    >>> import shoal
    >>> barrier = shoal.Barrier(1, action=lambda: print("all here"))
    >>> barrier.wait()
    all here
    0
    """

    _action: Callable[[], object] | None
    _timeout: float | None

    def __new__(
        cls,
        parties: int,
        action: Callable[[], object] | None = None,
        timeout: float | None = None,
    ) -> Self:
        made = core.Barrier.__new__(cls, parties)
        made._action = action
        made._timeout = timeout
        return made

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the others; raises threading.BrokenBarrierError."""
        index = self._wait(self._action, self._timeout if timeout is None else timeout)
        if index < 0:
            from threading import BrokenBarrierError

            raise BrokenBarrierError
        return index

    def __reduce__(self) -> tuple[Any, ...]:
        return _session.reduce_shared(
            _barrier_at, self, type(self), self.parties, self._action, self._timeout
        )

    def __repr__(self) -> str:
        state = "broken" if self.broken else f"{self.n_waiting}/{self.parties} waiting"
        return f"<shoal.{type(self).__name__} {state}>"


def _barrier_at(handle: int, cls: Any, parties: int, action: Any, timeout: Any) -> Any:
    made = core.Barrier.__new__(cls, parties, handle)
    made._action = action
    made._timeout = timeout
    return made


@public
class Flag(core.Event):
    """A flag that is very cheap to read: for "found it, stop" between processes.

    >>> import shoal
    >>> found = shoal.Flag()
    >>> found.is_set()
    False
    >>> found.set()
    >>> found.wait(), found.is_set()
    (True, True)
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _session.reduce_shared(_event_at, self, type(self))

    def __repr__(self) -> str:
        return f"<shoal.{type(self).__name__} {'set' if self.is_set() else 'unset'}>"


@public
class Atomic(core.Atomic):
    """A number shared between processes without a lock: each method is one atomic step.

    `kind` is "int64", "uint64", "float64" or "bool"; by default it follows from the first value.
    `add`, `sub`, `max`, `min` and `exchange` return the previous value. Sums wrap around.
    `wait(seen)` sleeps until the value differs from `seen`.

    >>> import shoal
    >>> total = shoal.Atomic(0)
    >>> total.add(5), total.add(), total.max(3), total.value
    (0, 5, 6, 6)
    >>> total.compare_exchange(6, 100), total.wait(6), total.load()
    (True, True, 100)
    """

    def __new__(cls, value: float = 0, kind: str | None = None) -> Self:
        if kind is None:
            is_float = isinstance(value, float)
            kind = "bool" if isinstance(value, bool) else "float64" if is_float else "int64"
        return core.Atomic.__new__(cls, value, kind)

    def __reduce__(self) -> tuple[Any, ...]:
        return _session.reduce_shared(_atomic_at, self, type(self))

    def __repr__(self) -> str:
        return f"<shoal.{type(self).__name__} {self.kind} {self.value!r}>"


def _atomic_at(handle: int, cls: Any) -> Any:
    return core.Atomic.__new__(cls, 0, "int64", handle)


_children.carry_session()
