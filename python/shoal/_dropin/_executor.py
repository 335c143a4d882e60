# SPDX-License-Identifier: Apache-2.0
"""The replacement of `concurrent.futures.ProcessPoolExecutor`, with its signatures and behaviour.

`shoal.install()` and `shoal run` put it in place; users never name it. Its bases are shoal's own
class, then the stock class. It behaves as the standard library does: workers start with the first
task (under spawn and forkserver as many as there are tasks), a running future cannot be cancelled,
and a worker's death breaks the executor, whether the worker had a task or not: every open future
and every later `submit` gets a BrokenProcessPool, which says which worker died, why, and what task
it was running.

A task or result that cannot be unpickled fails only its own future, with BrokenProcessPool. The
standard library breaks the whole executor in that case, but none of its tests requires it.

*Healing*: with SHOAL_HEAL=1 in the environment (`shoal run --heal`) a death fails only the lost
task, with WorkerDied, as it does with `shoal.Executor`; a fresh worker takes over.
Design: docs/design/drop_in.md
"""

from __future__ import annotations

import builtins
import concurrent.futures.process as stock_futures
import multiprocessing
import operator
import os
import pickle
import signal
import sys
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from multiprocessing.context import BaseContext

from shoal._dropin import _stock_classes
from shoal._dropin._engine import (
    PREFIXES,
    Context,
    DropInEngine,
    concrete_context,
)
from shoal._dropin._startup import log_failure
from shoal._dropin._stock_view import WorkersEnd, WorkerView, view_workers, wait_for_a_beginning
from shoal._pickling import _exceptions
from shoal._pool import _client_hooks, _engine, _executor, _futures
from shoal._runtime import _cpus, _limits, _locks
from shoal._runtime._native import core
from shoal.errors import InitializerFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Any, because its signatures differ from shoal's in details that only type checkers notice.
_StockExecutor: Any = stock_futures.ProcessPoolExecutor
_futures_module: Any = stock_futures
_CLOSED = "cannot schedule new futures after shutdown"
_MANY = 1 << 30  # the assumed number of chunks of an input of unknown length


def heals() -> bool:
    """Whether executors made from now on heal: a worker's death fails only its task."""
    return os.environ.get("SHOAL_HEAL") == "1"


class ExecutorHooks(_client_hooks.ClientHooks):
    """Makes errors as the stock executor words them. A death is passed to `broken_by`, if set."""

    broken_by: Callable[[BaseException], object] | None = None
    _told: BaseException | None = None  # the error that the dead worker's task got

    def worker_died(
        self,
        pid: int,
        status: int,
        peak: int,
        memory_limit: bool,
        what: _client_hooks.What | None = None,
    ) -> BaseException:
        told = super().worker_died(pid, status, peak, memory_limit, what)
        if sys.version_info >= (3, 15) and self.broken_by is not None:
            # From 3.15 on the standard library names the dead process in this way.
            code = os.waitstatus_to_exitcode(status)
            text = f"Process {pid} terminated abruptly with exit code {code}"
            told.__cause__ = _futures_module._RemoteTraceback(text)
        self._told = told
        return told

    def worker_ended(self, pid: int, status: int, peak: int, memory_limit: bool) -> None:
        error, self._told = self._told, None
        if self.broken_by is not None:
            self.broken_by(error or super().worker_died(pid, status, peak, memory_limit))

    def _after_death(self) -> str:
        if self.broken_by is None:
            return super()._after_death()
        return ". The executor is broken by it; 'shoal run --heal' fails only the lost task"

    def undecodable(self, error: BaseException) -> BaseException:
        return _not_rebuilt("the task's result could not be rebuilt in this process", error)

    def decode_error(self, encoded: tuple[Any, ...]) -> BaseException:
        error = super().decode_error(encoded)
        if encoded[-1] != "decode":
            return error
        return _not_rebuilt("the task could not be rebuilt in its worker", error)


def _not_rebuilt(what: str, error: BaseException) -> BaseException:
    text = f"{what}: {type(error).__name__}: {error}. Only this task is lost"
    broken = stock_futures.BrokenProcessPool(text)
    broken.__cause__ = error
    return broken


class ExecutorEngine(DropInEngine):
    """The engine of one executor. It breaks as a whole, and starts workers as they are needed."""

    _hooks: ExecutorHooks
    _hooks_class = ExecutorHooks
    # If set, withdrawn futures get a BrokenProcessPool with this text instead of a CancelledError.
    why_withdrawn = ""
    daemons = False

    def __init__(
        self,
        context: BaseContext,
        workers: int,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        tasks_per_worker: int | None,
        name: str,
    ) -> None:
        # Under fork all workers start together, as in the standard library, because a fork is
        # unsafe once the caller has threads.
        self._first_workers = workers if context.get_start_method() == "fork" else 0
        if initializer is not None:
            initializer, initargs = log_failure, (initializer, *initargs)
        super().__init__(context, workers, initializer, initargs, tasks_per_worker, name)
        if not heals():
            me = weakref.ref(self)

            def broken_by(error: BaseException) -> None:
                engine = me()
                if engine is not None:
                    engine.break_by(error)

            self._hooks.broken_by = broken_by

    def _make_agent(self) -> Any:
        """Without healing, a worker that cannot start breaks the executor and is not replaced."""
        agent = super()._make_agent()
        if not heals() and hasattr(agent, "start_patience"):
            agent.start_patience = 1
        return agent

    def start_workers_for(self, tasks: int) -> None:
        """`tasks` tasks were added: start workers until there is one for each open task, or the
        maximum.
        """
        client = self.client
        if client.wanted >= self.workers or self.broken is not None:
            return
        client.collect(0)  # so that tasks that have ended do not count as open
        wanted = min(self.workers, max(client.open_calls, tasks))
        before = client.wanted
        if wanted > before:
            client.want(wanted)
            try:
                with _limits.named("cannot start a worker"):
                    self._agent.start_workers_now()
            except BaseException:
                if not self.worker_pids():  # no sent task could ever begin
                    client.want(before)
                    self.cancel_queued()
                raise

    def withdraw_queued(self, why: str) -> None:
        """Fail the tasks that have not begun, and replace no worker that ends."""
        self.why_withdrawn = why
        self.client.want(0)
        self.cancel_queued()

    def break_by(self, error: BaseException) -> None:
        """A worker has died: fail all open tasks, and accept no new ones."""
        if self.broken is not None and type(self.broken) is not InitializerFailed:
            return
        error = self._why_not_started() or error
        self.broken = self._hooks.broken = _broken(error)
        self.client.end()
        self.client.abandon(lambda: _broken(error))
        self.client.set_phase(core.PHASE_STOPPING)
        self._agent.ring()

    def _why_not_started(self) -> BaseException | None:
        encoded = self.client.take_failure()
        if encoded is None:
            return None
        cause = _exceptions.decode_exception(encoded)
        error = InitializerFailed(
            f"a worker could not be initialized, and the executor is broken by it: "
            f"{type(cause).__name__}: {cause}"
        )
        error.__cause__ = cause
        return error

    def finish(self) -> None:
        if self.broken is not None:
            self.terminate()
        else:
            super().finish()


def _broken(error: BaseException) -> BaseException:
    broken = stock_futures.BrokenProcessPool(str(error))
    broken.__cause__ = error
    return broken


class DropInFuture(_futures.Future):
    """A future whose running task cannot be cancelled."""

    _engine: ExecutorEngine

    def _stops_running(self) -> bool:
        return False

    def _deliver(self, ok: bool, value: Any) -> None:
        if not ok and isinstance(value, CancelledError) and self._engine.why_withdrawn:
            value = stock_futures.BrokenProcessPool(self._engine.why_withdrawn)
        super()._deliver(ok, value if ok else _as_stock_error(value))


class DropInExecutor(_executor.Executor, _StockExecutor):  # type: ignore[misc]
    """`concurrent.futures.ProcessPoolExecutor` on shoal.

    Workers start with the first task, so under fork they see everything the program has made before
    it.
    """

    _future_class = DropInFuture
    _engine: ExecutorEngine
    _shut_down_unused = False
    _forced = False
    _queue_count = 0  # calls and chunks sent so far
    _cancel_pending_futures = False

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
        self._mp_context = concrete_context(mp_context)
        _check_arguments(self._mp_context, max_workers, initializer, max_tasks_per_child)
        self._max_workers = _cpus.standard_count() if max_workers is None else max_workers
        self._max_tasks_per_child = max_tasks_per_child
        self._initializer = initializer
        self._initargs = initargs
        self._starting = _locks.Lock()
        self._shutdown_lock = _locks.Lock()  # an attribute of the stock executor; unused here
        _executor._register_exit()

    def __getattr__(self, name: str) -> Any:
        """Called for missing attributes only. `_engine` starts the engine on its first use; other
        private names are those of the stock executor, which `_executor_view` answers.
        """
        if not name.startswith("_") or name[:2] == "__" or "_starting" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if name != "_engine":
            from shoal._dropin import _executor_view

            return _executor_view.attribute(self, name)
        with self._starting:
            if "_engine" not in self.__dict__:
                if self._shut_down_unused or _executor.exiting():
                    raise RuntimeError(_closed_text())
                self.__dict__["_engine"] = ExecutorEngine(
                    self._mp_context,
                    self._max_workers,
                    self._initializer,
                    tuple(self._initargs),
                    self._max_tasks_per_child,
                    PREFIXES[self._mp_context.get_start_method()],
                )
                _executor._open.add(self)
        return self.__dict__["_engine"]

    def _submit(self, *arguments: Any) -> _futures.Future:
        future = super()._submit(*arguments)
        engine = self._engine
        # In the standard library a worker has already started when the pickling of a task fails.
        # So a task that was not sent still starts a worker.
        unsent = engine.client.wanted if future._ticket == 0 else 0
        engine.start_workers_for(unsent + 1)
        self._queue_count += 1
        return future

    def _map(self, *arguments: Any) -> Iterator[Any]:
        _, iterables, _, chunksize, buffersize, *_ = arguments
        if chunksize >= 1 and buffersize is None and _chunks(iterables, chunksize) == 0:
            return iter(())  # no task, so no error after shutdown
        results = _with_stock_errors(super()._map(*arguments))
        chunks = _chunks(iterables, chunksize)
        self._engine.start_workers_for(chunks)
        self._queue_count += chunks if chunks < _MANY else 0
        return results

    def _check_open(self) -> None:
        engine = self._engine
        if engine.closed and not engine.forked and engine.broken is None:
            raise RuntimeError(_closed_text())
        if engine.broken is not None and not engine.forked:
            raise _broken(engine.broken)
        engine.check_open()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        with self._starting:
            self._shut_down_unused = True
            self._cancel_pending_futures = cancel_futures
            started = "_engine" in self.__dict__
        if started:
            if cancel_futures:
                wait_for_a_beginning(self._engine)
            super().shutdown(wait, cancel_futures=cancel_futures)

    shutdown.__doc__ = _executor.Executor.shutdown.__doc__

    def _interrupt(self) -> None:
        if "_engine" in self.__dict__:
            super()._interrupt()

    def __del__(self) -> None:
        if "_engine" in self.__dict__:
            super().__del__()

    def terminate_workers(self) -> None:
        self._force_shutdown(operation="terminate")

    def kill_workers(self) -> None:
        self._force_shutdown(operation="kill")

    terminate_workers.__doc__ = _executor.Executor.terminate_workers.__doc__
    kill_workers.__doc__ = _executor.Executor.kill_workers.__doc__

    def _force_shutdown(self, operation: str) -> None:
        """The method of this name that the stock `terminate_workers` and `kill_workers` call."""
        if operation not in ("terminate", "kill"):
            raise ValueError(f"Unsupported operation: {operation!r}")
        if "_engine" not in self.__dict__:
            return self.shutdown(wait=False, cancel_futures=True)  # none has started
        workers = list((self._processes or {}).values())
        self._stop(signal.SIGTERM if operation == "terminate" else signal.SIGKILL)
        for worker in workers:  # already signalled; called for programs that patch these methods
            getattr(worker, operation)()

    @property
    def _force_shutting_down(self) -> bool:
        """The stock executor's flag that it is being shut down by force. Programs may set it."""
        return self._forced

    @_force_shutting_down.setter
    def _force_shutting_down(self, value: bool) -> None:
        self._forced = value
        if value and "_engine" in self.__dict__:
            self._engine.withdraw_queued(
                "the executor is being forcefully shut down: what has not begun will not run"
            )

    @property
    def _processes(self) -> dict[int, WorkerView] | None:
        if "_engine" not in self.__dict__:
            return None if self._shut_down_unused else {}
        if self._engine._agent.ended:
            return None
        return {worker.pid: worker for worker in view_workers(self._engine, "Process")}

    @property
    def _executor_manager_thread(self) -> WorkersEnd | None:
        engine = self.__dict__.get("_engine")
        return None if engine is None or self._shut_down_unused else WorkersEnd(engine)

    def _start_executor_manager_thread(self) -> None:
        """Recipes that start workers before the first task call this method and the next three."""
        self._engine  # noqa: B018

    def _adjust_process_count(self) -> None:
        self._engine.start_workers_for(self._engine.client.wanted + 1)

    def _launch_processes(self) -> None:
        self._engine.start_workers_for(self._max_workers)

    _spawn_process = _adjust_process_count

    @property
    def _broken(self) -> bool | str:
        engine = self.__dict__.get("_engine")
        return False if engine is None or engine.broken is None else str(engine.broken)


def _closed_text() -> str:
    return _CLOSED if not _executor.exiting() else _CLOSED.replace("after", "after interpreter")


def _chunks(iterables: tuple[Any, ...], chunksize: int) -> int:
    """The number of tasks that the standard library makes of a map; `_MANY` if the length of the
    input is unknown.
    """
    shortest = min(map(_engine.length, iterables), default=-1)
    return _MANY if shortest < 0 else -(-shortest // chunksize)


def _with_stock_errors(results: Iterator[Any]) -> Iterator[Any]:
    """Yield the results, with errors converted. Holds no reference to the executor, which may be
    dropped before the results are fetched.
    """
    try:
        yield from results
    except Exception as error:
        stock_error = _as_stock_error(error)
        if stock_error is error:
            raise
        raise stock_error from stock_error.__cause__


def _as_stock_error(error: BaseException) -> BaseException:
    """Convert a task's error to the type, and the type of cause, that the stock executor gives."""
    cause: Any = error.__cause__
    if type(error) is InitializerFailed:
        error, cause = _broken(error), error
    elif _stock_classes.is_of_pool(error, "MaybeEncodingError"):
        error = _unpicklable(str(getattr(error, "exc", "")))
    if _stock_classes.is_of_pool(cause, "RemoteTraceback"):
        cause = _futures_module._RemoteTraceback(cause.tb)
    error.__cause__ = cause
    return error


def _unpicklable(description: str) -> BaseException:
    """The error for a result that cannot be pickled, rebuilt from the repr of the worker's error,
    because the error object itself stayed in the worker.
    """
    name, _, rest = description.partition("(")
    kind = getattr(builtins, name, None)
    text = rest.removesuffix(")")
    if text[:1] in ("'", '"'):
        text = text[1:-1]
    if isinstance(kind, type) and issubclass(kind, (TypeError, AttributeError, SystemExit)):
        return kind(text)
    return pickle.PicklingError(text)


def _check_arguments(
    context: BaseContext,
    max_workers: int | None,
    initializer: Callable[..., object] | None,
    max_tasks_per_child: int | None,
) -> None:
    """The checks of the stock constructor, with its texts."""
    if max_workers is not None and max_workers <= 0:
        raise ValueError("max_workers must be greater than 0")
    if max_workers is not None:
        operator.index(max_workers)  # raises TypeError here instead of in the first task
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
