# SPDX-License-Identifier: Apache-2.0
"""The classes that stand in for the standard library's: its signatures, its promises, our pools.

Made by `shoal.install()`, `shoal run` and `shoal.multiprocessing`, never named by users. Each is
shoal's own class first and the stock class second, so `isinstance` holds for both and the stock
code runs nowhere. The start method is the one of the context, as the standard library would have
it: fork for fork, spawn for spawn, and the zygote for forkserver.

Where shoal promises more than the standard library pins down, the standard library's word holds
here: fork forks whatever threads there are (with CPython's warning); a running future cannot be
cancelled; a worker's death breaks an executor for good.
Design: docs/design/drop_in.md
"""

from __future__ import annotations

import builtins
import concurrent.futures.process as stock_futures
import multiprocessing
import multiprocessing.pool as stock_pool
import pickle
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.context import BaseContext
from types import ModuleType
from typing import Any

from shoal import _engine, _executor, _futures, _locks, _pool
from shoal._dropin_engine import DropInEngine
from shoal._stock_view import WorkerView, view_workers, wait_for_a_beginning
from shoal.errors import InitializerFailed

_PREFIXES = {"fork": "Fork", "spawn": "Spawn", "forkserver": "ForkServer"}

Context = BaseContext | ModuleType | None

# Their signatures differ from ours in details that type checkers mind and callers do not.
_StockPool: Any = stock_pool.Pool
_StockExecutor: Any = stock_futures.ProcessPoolExecutor
_states: Any = stock_pool
_futures_module: Any = stock_futures


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
        self._ctx = _concrete(context)
        _check_pool_arguments(processes, initializer, maxtasksperchild)
        self._name = _PREFIXES[self._ctx.get_start_method()]
        self._engine = DropInEngine(
            self._ctx, processes, initializer, tuple(initargs), maxtasksperchild, self._name
        )
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


class DropInFuture(_futures.Future):
    """Its running task cannot be cancelled, and its worker's death ends the executor."""

    def _stops_running(self) -> bool:
        return False

    def _deliver(self, ok: bool, value: Any) -> None:
        if not ok:
            value = _as_stock_error(value)
        super()._deliver(ok, value)
        if not ok:
            _break(self._engine, value)


class _EndView:
    """What the stock executor's manager thread and queue are waited for: the end of its workers."""

    def __init__(self, engine: _engine.Engine) -> None:
        self._engine = engine

    def join(self, timeout: float | None = None) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._engine._agent.ended and (deadline is None or time.monotonic() < deadline):
            time.sleep(0.001)

    join_thread = join


class DropInExecutor(_executor.Executor, _StockExecutor):  # type: ignore[misc]
    """`concurrent.futures.ProcessPoolExecutor` on shoal.

    Workers start with the first task, so under fork they see what the program has made until then.
    """

    _future_class = DropInFuture
    _shut_down_unused = False

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: Context = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
    ) -> None:
        if mp_context is None and max_tasks_per_child is not None:
            mp_context = multiprocessing.get_context("spawn")
        self._mp_context = _concrete(mp_context)
        _check_executor_arguments(self._mp_context, max_workers, initializer, max_tasks_per_child)
        self._max_workers = _engine.cpu_count() if max_workers is None else max_workers
        self._max_tasks_per_child = max_tasks_per_child
        self._initializer = initializer
        self._initargs = initargs
        self._starting = _locks.Lock()

    def __getattr__(self, name: str) -> Any:
        """The engine starts when it is first needed. Only missing attributes come here."""
        if name != "_engine" or "_starting" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        with self._starting:
            if "_engine" not in self.__dict__:
                if self._shut_down_unused:
                    raise RuntimeError("cannot schedule new futures after shutdown")
                self.__dict__["_engine"] = DropInEngine(
                    self._mp_context,
                    self._max_workers,
                    self._initializer,
                    tuple(self._initargs),
                    self._max_tasks_per_child,
                    _PREFIXES[self._mp_context.get_start_method()],
                )
                _executor._open.add(self)
                _executor._register_exit()
        return self.__dict__["_engine"]

    def _map(self, *arguments: Any) -> Iterator[Any]:
        return _with_stock_errors(super()._map(*arguments), self._engine)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        with self._starting:
            self._shut_down_unused = True
            started = "_engine" in self.__dict__
        if started:
            if cancel_futures:
                wait_for_a_beginning(self._engine)
            super().shutdown(wait, cancel_futures=cancel_futures)

    shutdown.__doc__ = _executor.Executor.shutdown.__doc__

    def __del__(self) -> None:
        if "_engine" in self.__dict__:
            super().__del__()

    @property
    def _processes(self) -> dict[int, WorkerView] | None:
        if "_engine" not in self.__dict__:
            return None if self._shut_down_unused else {}
        if self._engine._agent.ended:
            return None
        return {worker.pid: worker for worker in view_workers(self._engine, "Process")}

    @property
    def _executor_manager_thread(self) -> _EndView | None:
        engine = self.__dict__.get("_engine")
        return None if engine is None or self._shut_down_unused else _EndView(engine)

    @property
    def _call_queue(self) -> _EndView | None:
        return self._executor_manager_thread

    @property
    def _broken(self) -> bool | str:
        engine = self.__dict__.get("_engine")
        return False if engine is None or engine.broken is None else str(engine.broken)


def _with_stock_errors(results: Iterator[Any], engine: _engine.Engine) -> Iterator[Any]:
    """The results. Does not hold the executor: it may be dropped before they are fetched."""
    try:
        yield from results
    except Exception as error:
        stock_error = _as_stock_error(error)
        _break(engine, stock_error)
        if stock_error is error:
            raise
        raise stock_error from stock_error.__cause__


def _as_stock_error(error: BaseException) -> BaseException:
    """A task's error as the stock executor gives it: of its type, with its type of cause."""
    cause: Any = error.__cause__
    if type(error) is InitializerFailed:
        error, cause = stock_futures.BrokenProcessPool(str(error)), error
    elif type(error) is _states.MaybeEncodingError:
        error = _unpicklable(str(getattr(error, "exc", "")))
    if type(cause) is _states.RemoteTraceback:
        cause = _futures_module._RemoteTraceback(cause.tb)
    error.__cause__ = cause
    return error


def _unpicklable(description: str) -> BaseException:
    """The error of a result that cannot be pickled, from its repr: the object stayed there."""
    name, _, rest = description.partition("(")
    kind = getattr(builtins, name, None)
    text = rest.removesuffix(")")
    if text[:1] in ("'", '"'):
        text = text[1:-1]
    if isinstance(kind, type) and issubclass(kind, (TypeError, AttributeError, SystemExit)):
        return kind(text)
    return pickle.PicklingError(text)


def _break(engine: _engine.Engine, error: BaseException) -> None:
    """After a worker's death all open futures fail, and no new ones are taken."""
    if isinstance(error, stock_futures.BrokenProcessPool) and (
        engine.broken is None or type(engine.broken) is InitializerFailed
    ):
        engine.broken = error
        engine.client.abandon(lambda: error)


def _concrete(context: Context) -> BaseContext:
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


def _check_executor_arguments(
    context: BaseContext,
    max_workers: int | None,
    initializer: Callable[..., object] | None,
    max_tasks_per_child: int | None,
) -> None:
    """The checks of the stock constructor, with its texts."""
    if max_workers is not None and max_workers <= 0:
        raise ValueError("max_workers must be greater than 0")
    if initializer is not None and not callable(initializer):
        raise TypeError("initializer must be a callable")
    if max_tasks_per_child is None:
        return
    if not isinstance(max_tasks_per_child, int):
        raise TypeError("max_tasks_per_child must be an integer")
    if max_tasks_per_child <= 0:
        raise ValueError("max_tasks_per_child must be >= 1")
    if context.get_start_method() == "fork":
        raise ValueError(
            "max_tasks_per_child is incompatible with the 'fork' multiprocessing start method;"
            " supply a different mp_context."
        )
