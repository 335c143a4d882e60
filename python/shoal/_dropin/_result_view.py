# SPDX-License-Identifier: Apache-2.0
"""Private attributes of the standard library's results, emulated for shoal's: see
`_stock_counters`.

`attribute(result, name)` is called for names that the result does not have.
"""

from __future__ import annotations

import multiprocessing.pool as stock_pool
import threading

from shoal._dropin import _pool_view
from shoal._dropin._stock_counters import chunks_left, is_open, take_in
from shoal._pool import _results

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Views = dict[str, Callable[[Any], Any]]

_stock: Any = stock_pool


class EventView:
    """The event that is set when a result is ready."""

    def __init__(self, result: Any) -> None:
        self._result = result

    def is_set(self) -> bool:
        return bool(self._result.ready())

    isSet = is_set

    def wait(self, timeout: float | None = None) -> bool:
        self._result.wait(timeout)
        return self.is_set()


def attribute(result: Any, name: str) -> Any:
    for kind, views in _VIEWS:
        if name in views and kind in ("any", result.viewed_as):
            return views[name](result)
    raise AttributeError(f"{type(result).__name__!r} object has no attribute {name!r}")


def _number(result: Any) -> int:
    """The result's number, which does not change: its key in `pool._cache`."""
    number: int = result.__dict__.setdefault("_job", next(_stock.job_counter))
    return number


def _pool(result: Any) -> Any:
    return result._engine.pool() if is_open(result) else None


def _cache(result: Any) -> Any:
    return _pool_view.cache(result._engine)


def _has_no_error(result: Any) -> bool:
    if not is_open(result):
        return bool(result._state == _results._OK)
    take_in(result._engine)
    return result._work is None or result._work.error is None


def so_far(result: Any) -> Any:
    take_in(result._engine)
    return result._work.error or result._work.so_far()


def _number_left(result: Any) -> int:
    take_in(result._engine)
    return chunks_left(result._work) if is_open(result) and result._work is not None else 0


def _chunksize(result: Any) -> int:
    total, *_, chunk = result._work.counts
    return int(chunk) if total else 0


def _arrived(iterator: Any) -> int:
    """The number of results that have arrived, fetched or not; for an ordered iterator, up to the
    first gap.
    """
    take_in(iterator._engine)
    _, _, _, taken, ready, _ = iterator._work.counts
    return int(taken + ready)


def _waiting(iterator: Any) -> range:
    """A range whose length is the number of results to fetch."""
    take_in(iterator._engine)
    return range(iterator._work.counts[4])


def _length(iterator: Any) -> int | None:
    total: int = iterator._work.counts[0]
    return None if total < 0 else total


_VIEWS: tuple[tuple[str, Views], ...] = (
    (
        "any",
        {"_job": _number, "_event": EventView, "_pool": _pool, "_cache": _cache},
    ),
    ("call", {"_success": lambda result: result._state == _results._OK}),
    (
        "map",
        {"_success": _has_no_error, "_number_left": _number_left, "_chunksize": _chunksize},
    ),
    (
        "iterator",
        {
            "_index": _arrived,
            "_items": _waiting,
            "_length": _length,
            "_unsorted": lambda iterator: {},
            "_cond": lambda iterator: threading.Condition(),
        },
    ),
)
