# SPDX-License-Identifier: Apache-2.0
"""The replacement of `multiprocessing.pool.Pool`: its signatures and behaviour on shoal's pool.

`shoal.install()`, `shoal run` and `shoal.multiprocessing` put it in place; users never name it. Its
bases are shoal's own class, then the stock class (`_stock_classes.py`), so `isinstance` holds for
both and no stock code runs. The start method is the one of the context.

Where `shoal.Pool` behaves differently from the standard library, this pool behaves like the
standard library: fork forks whatever threads there are (with CPython's warning), and a result that
the standard library could not pickle is an error.
Design: docs/design/drop_in.md
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterable

from shoal._dropin import _results, _stock_classes
from shoal._dropin._engine import PREFIXES, Context, DropInEngine, concrete_context
from shoal._dropin._stock_view import WorkerView, view_workers, wait_for_initializers
from shoal._pool import _client_hooks, _pool
from shoal._runtime import _cpus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class PoolHooks(_client_hooks.ClientHooks):
    """Makes errors as the stock pool does."""

    def decode_error(self, encoded: tuple[Any, ...]) -> BaseException:
        error = super().decode_error(encoded)
        if encoded[-1] == "encode" and _stock_classes.is_of_pool(error, "MaybeEncodingError"):
            error.__cause__ = None  # its message is complete without one
        return error


class PoolEngine(DropInEngine):
    _hooks_class = PoolHooks


class DropInPool(_pool.Pool):
    """`multiprocessing.pool.Pool` on shoal."""

    _call_result: type[Any] = _results.ApplyResult
    _map_result: type[Any] = _results.MapResult
    _iterator: type[Any] = _results.IMapIterator
    _unordered_iterator: type[Any] = _results.IMapUnorderedIterator
    _forced_state: str | None = None

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Context = None,
    ) -> None:
        self._ctx = concrete_context(context)
        if processes is None:
            processes = _cpus.standard_count()
        _check_pool_arguments(processes, initializer, maxtasksperchild)
        self._name = PREFIXES[self._ctx.get_start_method()]
        self._engine = PoolEngine(
            self._ctx, processes, initializer, tuple(initargs), maxtasksperchild, self._name
        )
        # ValueError itself, not a subclass: some programs compare types (scipy's tests do).
        self._engine.closed_error = ValueError
        self._engine.pool = weakref.ref(self)
        self._processes = self._engine.workers
        self._maxtasksperchild = maxtasksperchild
        self._initializer = initializer
        self._initargs = initargs

    @property
    def _pool(self) -> list[WorkerView]:
        return view_workers(self._engine, f"{self._name}PoolWorker")

    @_pool.setter
    def _pool(self, value: object) -> None:
        pass

    @property
    def _state(self) -> str:
        if self._forced_state is not None:
            return self._forced_state
        engine = self.__dict__.get("_engine")
        return _stock_classes.INIT if engine is None else _stock_classes.state_of(engine)

    @_state.setter
    def _state(self, value: str) -> None:
        """Recipes that kill the workers set the state; then the pool accepts no more tasks."""
        self._forced_state = value
        if value != _stock_classes.RUN:
            self._engine.close()

    def __getattr__(self, name: str) -> Any:
        """Private attributes of the stock pool: `_pool_view` answers them."""
        if not name.startswith("_") or name.startswith("__"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        from shoal._dropin import _pool_view

        return _pool_view.attribute(self, name)

    def join(self) -> None:
        """Wait for all tasks, all initializers and all workers to end."""
        engine = self._engine
        if self._initializer is not None and engine.closed and not engine.forked:
            wait_for_initializers(engine)  # the standard library's workers always run them
        super().join()

    def _repopulate_pool(self) -> None:
        """Does nothing: workers are replaced automatically."""

    def __del__(self) -> None:
        engine = self.__dict__.get("_engine")
        if engine is None or engine.forked:
            return
        try:
            if self._state == _stock_classes.RUN:
                text = f"unclosed running multiprocessing pool {self!r}"
                warnings.warn(text, ResourceWarning, source=self, stacklevel=2)
        finally:  # even if the warning is raised as an error
            if not engine._agent.ended:
                engine.let_go()


def _check_pool_arguments(
    processes: int | None,
    initializer: Callable[..., object] | None,
    maxtasksperchild: int | None,
) -> None:
    """The checks of the stock constructor, with its texts."""
    if processes is not None and processes < 1:
        raise ValueError("Number of processes must be at least 1")
    if maxtasksperchild is not None and (
        not isinstance(maxtasksperchild, int) or maxtasksperchild <= 0
    ):
        raise ValueError("maxtasksperchild must be a positive int or None")
    if initializer is not None and not callable(initializer):
        raise TypeError("initializer must be a callable")


_stock_classes.follow(
    "multiprocessing.pool",
    (DropInPool, "Pool"),
    (_results.ApplyResult, "ApplyResult"),
    (_results.MapResult, "MapResult"),
    (_results.IMapIterator, "IMapIterator"),
    (_results.IMapUnorderedIterator, "IMapUnorderedIterator"),
)
