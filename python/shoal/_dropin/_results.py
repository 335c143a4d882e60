# SPDX-License-Identifier: Apache-2.0
"""What the asynchronous methods of the drop-in's pool return: shoal's results, which are instances
of the standard library's classes (`_stock_classes`) and have their private names (`_result_view`).
"""

from __future__ import annotations

from shoal._pool import _results

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shoal._dropin._engine import DropInEngine


class _Viewed:
    """Private names of the standard library's are answered when a program asks for one."""

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") or name.startswith("__"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        from shoal._dropin import _result_view

        return _result_view.attribute(self, name)


class ApplyResult(_Viewed, _results.AsyncResult):
    """`multiprocessing.pool.AsyncResult` on shoal."""

    viewed_as = "call"

    def _set(self, i: int, obj: tuple[bool, Any]) -> None:
        """By this name recipes for lost tasks give a result its outcome."""
        self._deliver(*obj)


class MapResult(_Viewed, _results.MapResult):
    """`multiprocessing.pool.MapResult` on shoal."""

    viewed_as = "map"
    _outcome: Any = None

    def __init__(self, engine: DropInEngine, *callbacks: Any) -> None:
        super().__init__(engine, *callbacks)
        engine.results.add(self)

    @property
    def _value(self) -> Any:
        """The outcome; before, the results so far, with None in the places of those to come."""
        if self._state != _results._PENDING or self._work is None:
            return self._outcome
        from shoal._dropin import _result_view

        return _result_view.so_far(self)

    @_value.setter
    def _value(self, value: Any) -> None:
        self._outcome = value


class IMapIterator(_Viewed, _results.IMapIterator):
    """`multiprocessing.pool.IMapIterator` on shoal."""

    viewed_as = "iterator"

    def __init__(self, engine: DropInEngine, work: Any) -> None:
        super().__init__(engine, work)
        engine.results.add(self)


class IMapUnorderedIterator(IMapIterator):
    """`multiprocessing.pool.IMapUnorderedIterator` on shoal."""
