# SPDX-License-Identifier: Apache-2.0
"""`multiprocessing.synchronize` on shared memory.

Each class is the C type first (its methods are the ones that are called), shoal's native class, and
the stock class last, so that `isinstance` holds for all and no stock code runs but reprs. What the
standard library pins down holds: they pickle only for a child being spawned, those of a fork
context do not (from 3.11 on), private attributes that others look at are there.
Design: docs/design/drop_in.md
"""

from __future__ import annotations

import multiprocessing.context as stock_context
import multiprocessing.synchronize as stock
import sys

from shoal import _session, _sync
from shoal._native import core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_context: Any = stock_context
_stock: Any = stock

_FORK_TEXT = (
    "A SemLock created in a fork context is being shared with a process in a spawn context. This"
    " is not supported. Please use the same context to create multiprocessing objects and Process."
)


def is_fork(ctx: Any) -> bool:
    """Whether an object made for this context must stay among forked processes."""
    context = _context._default_context.get_context() if ctx is None else ctx
    return bool(context.get_start_method() == "fork")


def check_spawning(obj: Any, name: str, made_for_fork: bool) -> None:
    """Raise the standard library's RuntimeError unless `obj` may be pickled now."""
    if _session.spawning_popen() is None:
        raise RuntimeError(
            f"{name} objects should only be shared between processes through inheritance"
        )
    if made_for_fork and sys.version_info >= (3, 11):
        raise RuntimeError(_FORK_TEXT)


class _Shared:
    """What all of them have: made for a context, pickled only while spawning."""

    _is_fork_ctx = False  # of what was unpickled: it may be passed on

    def __init__(self, *arguments: Any, ctx: Any = None, **options: Any) -> None:
        if is_fork(ctx):
            self._is_fork_ctx = True

    def __reduce__(self) -> tuple[Any, ...]:
        check_spawning(self, type(self).__name__, self._is_fork_ctx)
        reduced: tuple[Any, ...] = super().__reduce__()  # type: ignore[assignment]
        return reduced


class Lock(_Shared, _sync.Lock, _stock.Lock):  # type: ignore[misc]
    """`multiprocessing.Lock` on shared memory."""

    def __new__(cls, *, on_owner_death: str = "warn", ctx: Any = None) -> Any:
        return core.Lock.__new__(cls, 0, _sync._check_death(on_owner_death))

    __repr__ = _stock.Lock.__repr__


class RLock(_Shared, _sync.RLock, _stock.RLock):  # type: ignore[misc]
    """`multiprocessing.RLock` on shared memory."""

    def __new__(cls, *, on_owner_death: str = "warn", ctx: Any = None) -> Any:
        return core.RLock.__new__(cls, 0, _sync._check_death(on_owner_death))

    __repr__ = _stock.RLock.__repr__


class Semaphore(_Shared, _sync.Semaphore, _stock.Semaphore):  # type: ignore[misc]
    """`multiprocessing.Semaphore` on shared memory."""

    def __new__(cls, value: int = 1, *, ctx: Any = None) -> Any:
        return _sync.Semaphore.__new__(cls, value)

    __repr__ = _stock.Semaphore.__repr__


class BoundedSemaphore(_Shared, _sync.BoundedSemaphore, _stock.BoundedSemaphore):  # type: ignore[misc]
    """`multiprocessing.BoundedSemaphore` on shared memory."""

    def __new__(cls, value: int = 1, *, ctx: Any = None) -> Any:
        return _sync.BoundedSemaphore.__new__(cls, value)

    __repr__ = _stock.BoundedSemaphore.__repr__


class _Count:
    """A stock condition's semaphore, for who looks at it: a number."""

    def __init__(self, value: int) -> None:
        self._value = value

    def get_value(self) -> int:
        return self._value

    _get_value = get_value

    @property
    def _semlock(self) -> _Count:
        return self


class Condition(_Shared, _sync.Condition, _stock.Condition):  # type: ignore[misc]
    """`multiprocessing.Condition` on shared memory."""

    def __new__(cls, lock: Any = None, *, ctx: Any = None) -> Any:
        return core.Condition.__new__(cls, RLock(ctx=ctx) if lock is None else lock)

    @staticmethod
    def _left(lock: Any = None, *arguments: Any, **options: Any) -> str:
        """Why such a call is left to the standard library; "" when it is not."""
        fits = lock is None or isinstance(lock, (core.Lock, core.RLock))
        return "" if fits else "its lock is not shoal's"

    @property
    def _sleeping_count(self) -> _Count:
        return _Count(self.waiters)

    @property
    def _woken_count(self) -> _Count:
        return _Count(0)

    @property
    def _wait_semaphore(self) -> _Count:
        return _Count(0)

    __repr__ = _stock.Condition.__repr__


class Barrier(_Shared, _sync.Barrier, _stock.Barrier):  # type: ignore[misc]
    """`multiprocessing.Barrier` on shared memory."""

    def __new__(
        cls, parties: int, action: Any = None, timeout: float | None = None, *, ctx: Any = None
    ) -> Any:
        return _sync.Barrier.__new__(cls, parties, action, timeout)

    def __reduce__(self) -> tuple[Any, ...]:
        check_spawning(self, "Condition", self._is_fork_ctx)
        return _sync.Barrier.__reduce__(self)

    @property
    def _parties(self) -> int:
        return self.parties

    @property
    def _state(self) -> int:
        return -2 if self.broken else 0

    @property
    def _count(self) -> int:
        return self.n_waiting

    __repr__ = getattr(_stock.Barrier, "__repr__", object.__repr__)


class Event(_Shared, _sync.Event, _stock.Event):  # type: ignore[misc]
    """`multiprocessing.Event` on shared memory."""

    def __new__(cls, *, ctx: Any = None) -> Any:
        return core.Event.__new__(cls)

    def __reduce__(self) -> tuple[Any, ...]:
        check_spawning(self, "Condition", self._is_fork_ctx)
        return _sync.Event.__reduce__(self)

    if sys.version_info >= (3, 11):
        __repr__ = _stock.Event.__repr__
    else:
        __repr__ = object.__repr__
