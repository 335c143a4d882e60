# SPDX-License-Identifier: Apache-2.0
"""What stands in for `multiprocessing.pool.Pool`: its signatures, its promises, our pool.

Made by `shoal.install()`, `shoal run` and `shoal.multiprocessing`, never named by users. It is
shoal's own class first and the stock class second, so `isinstance` holds for both and the stock
code runs nowhere. The start method is the one of the context, as the standard library would have
it: fork for fork, spawn for spawn, and the zygote for forkserver.

Where shoal promises more than the standard library pins down, the standard library's word holds
here: fork forks whatever threads there are (with CPython's warning), and a result that the standard
library could not pickle is an error.
Design: docs/design/drop_in.md
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.pool as stock_pool
import warnings
from collections.abc import Callable, Iterable
from multiprocessing.context import BaseContext
from types import ModuleType

from shoal import _cpus, _pool
from shoal._dropin_engine import DropInEngine
from shoal._stock_view import WorkerView, view_workers, wait_for_initializers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PREFIXES = {"fork": "Fork", "spawn": "Spawn", "forkserver": "ForkServer"}

Context = BaseContext | ModuleType | None

# Their signatures differ from ours in details that type checkers mind and callers do not.
_StockPool: Any = stock_pool.Pool
_states: Any = stock_pool


class DropInPool(_pool.Pool, _StockPool):  # type: ignore[misc]
    """`multiprocessing.pool.Pool` on shoal."""

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
        self._engine = DropInEngine(
            self._ctx, processes, initializer, tuple(initargs), maxtasksperchild, self._name
        )
        self._engine.closed_error = ValueError  # itself: some compare types (scipy's tests do)
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
        if engine is None:
            state = _states.INIT
        elif not engine.closed:
            state = _states.RUN
        else:
            state = _states.TERMINATE if engine._agent.ended else _states.CLOSE
        return str(state)

    @_state.setter
    def _state(self, value: str) -> None:
        self._forced_state = value

    def join(self) -> None:
        """Wait for all tasks, all initializers and all workers to end."""
        engine = self._engine
        if self._initializer is not None and engine.closed and not engine.forked:
            wait_for_initializers(engine)  # the standard library's workers run them in any case
        super().join()

    def _repopulate_pool(self) -> None:
        """Workers are replaced without being asked."""

    def __del__(self) -> None:
        engine = self.__dict__.get("_engine")
        if engine is None or engine.forked:
            return
        if self._state == _states.RUN:
            text = f"unclosed running multiprocessing pool {self!r}"
            warnings.warn(text, ResourceWarning, source=self, stacklevel=2)
        if not engine._agent.ended:
            engine.terminate()


def concrete_context(context: Context) -> BaseContext:
    """The context itself; for none, or the module `multiprocessing`, the default one."""
    if context is None or isinstance(context, ModuleType):
        return multiprocessing.get_context()
    return context.get_context()


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
