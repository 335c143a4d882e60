# SPDX-License-Identifier: Apache-2.0
"""The results that the asynchronous methods of the drop-in's pool return: shoal's results, which
are also instances of the standard library's classes (`_stock_classes`) and have their private
attributes (`_result_view`).
"""

from __future__ import annotations

from shoal._pool import _results

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shoal._dropin._engine import DropInEngine


class _Viewed:
    """Private attributes of the stock results: `_result_view` answers them."""

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") or name.startswith("__"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        from shoal._dropin import _result_view

        return _result_view.attribute(self, name)


class ApplyResult(_Viewed, _results.AsyncResult):
    """`multiprocessing.pool.AsyncResult` on shoal."""

    viewed_as = "call"

    def _set(self, i: int, obj: tuple[bool, Any]) -> None:
        """Recipes for lost tasks call this stock method to set the outcome of a result."""
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
        """The outcome. Before it is known, the results so far, with None for missing ones."""
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
