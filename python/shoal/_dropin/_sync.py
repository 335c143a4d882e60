# SPDX-License-Identifier: Apache-2.0
"""`multiprocessing.synchronize` on shared memory.

The bases of each class are the C type (whose methods are called), shoal's native class and, last,
the stock class (`_stock_classes.py`), so that `isinstance` holds for all and no stock code except
reprs runs. Pickling is restricted as in the standard library (`_shared.py`), and private attributes
that programs read exist.
Design: docs/design/drop_in.md
"""

from __future__ import annotations

import sys

from shoal._dropin import _stock_classes
from shoal._dropin._shared import Shared, check_spawning
from shoal._runtime._native import core
from shoal._shared import _sync

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_STOCK = "multiprocessing.synchronize"


class Lock(Shared, _sync.Lock):
    """`multiprocessing.Lock` on shared memory."""

    def __new__(cls, *, on_owner_death: str = "warn", ctx: Any = None) -> Any:
        return core.Lock.__new__(cls, 0, _sync._check_death(on_owner_death))

    __repr__ = _stock_classes.repr_of(_STOCK, "Lock")


class RLock(Shared, _sync.RLock):
    """`multiprocessing.RLock` on shared memory."""

    def __new__(cls, *, on_owner_death: str = "warn", ctx: Any = None) -> Any:
        return core.RLock.__new__(cls, 0, _sync._check_death(on_owner_death))

    __repr__ = _stock_classes.repr_of(_STOCK, "RLock")


class Semaphore(Shared, _sync.Semaphore):
    """`multiprocessing.Semaphore` on shared memory."""

    def __new__(cls, value: int = 1, *, ctx: Any = None) -> Any:
        return _sync.Semaphore.__new__(cls, value)

    __repr__ = _stock_classes.repr_of(_STOCK, "Semaphore")


class BoundedSemaphore(Shared, _sync.BoundedSemaphore):
    """`multiprocessing.BoundedSemaphore` on shared memory."""

    def __new__(cls, value: int = 1, *, ctx: Any = None) -> Any:
        return _sync.BoundedSemaphore.__new__(cls, value)

    __repr__ = _stock_classes.repr_of(_STOCK, "BoundedSemaphore")


class _Count:
    """Emulates a stock condition's semaphore, of which only the value can be read."""

    def __init__(self, value: int) -> None:
        self._value = value

    def get_value(self) -> int:
        return self._value

    _get_value = get_value

    @property
    def _semlock(self) -> _Count:
        return self


class Condition(Shared, _sync.Condition):
    """`multiprocessing.Condition` on shared memory."""

    def __new__(cls, lock: Any = None, *, ctx: Any = None) -> Any:
        return core.Condition.__new__(cls, RLock(ctx=ctx) if lock is None else lock)

    @staticmethod
    def _left(lock: Any = None, *arguments: Any, **options: Any) -> str:
        """Why a call with these arguments is left to the standard library; "" if it is not."""
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

    __repr__ = _stock_classes.repr_of(_STOCK, "Condition")


class Barrier(Shared, _sync.Barrier):
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

    __repr__ = _stock_classes.repr_of(_STOCK, "Barrier")


class Event(Shared, _sync.Event):
    """`multiprocessing.Event` on shared memory."""

    def __new__(cls, *, ctx: Any = None) -> Any:
        return core.Event.__new__(cls)

    def __reduce__(self) -> tuple[Any, ...]:
        check_spawning(self, "Condition", self._is_fork_ctx)
        return _sync.Event.__reduce__(self)

    if sys.version_info >= (3, 11):
        __repr__ = _stock_classes.repr_of(_STOCK, "Event")
    else:
        __repr__ = object.__repr__


_stock_classes.follow(
    _STOCK,
    *((cls, cls.__name__) for cls in (Lock, RLock, Semaphore, BoundedSemaphore)),
    *((cls, cls.__name__) for cls in (Condition, Barrier, Event)),
)
