# SPDX-License-Identifier: Apache-2.0
"""`shoal.Executor`: the interface of `concurrent.futures.Executor` on shared memory."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import weakref
from concurrent.futures import _base

from shoal._pool import _engine
from shoal._pool._futures import Future
from shoal._runtime._native import core
from shoal._runtime._public import public

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

_WINDOW = 1 << 16
_open: weakref.WeakSet[Executor] = weakref.WeakSet()


@public
class Executor(_base.Executor):
    """Worker processes behind `submit` and `map`.

    Parameters
    ----------
    max_workers: number of workers; None: `shoal.cpu_count()`.
    mp_context: a context of `multiprocessing`. Its start method chooses `start`: "fork" and "spawn"
    are the same, "forkserver" means "zygote".
    initializer, initargs: called in each worker before its first task.
    start: "zygote" (default), "fork" or "spawn", as for `shoal.Pool`. Give this or a context.
    max_tasks_per_child: a worker is replaced after that many tasks.

    A worker's death fails only the task that it ran (`WorkerDied`); the executor goes on with a
    fresh worker. Time limits and retries: `executor.options(timeout=1.5, retries=2).submit(f, x)`.

    >>> import shoal
    >>> with shoal.Executor(2) as executor:
    ...     executor.submit(pow, 2, 10).result()
    1024
    """

    _name = "Shoal"
    _future_class = Future

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        start: str | None = None,
        max_tasks_per_child: int | None = None,
    ) -> None:
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        start = _start_of(mp_context, start)
        self._engine = _engine.Engine(
            max_workers, initializer, initargs, max_tasks_per_child, start, self._name
        )
        _open.add(self)
        _register_exit()

    # ---- Tasks -----------------------------------------------------------------------------------

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """Call `fn(*args, **kwargs)` in a worker; returns a `Future`. If the call cannot be
        pickled, the future gets that error. Raises `PoolClosed` after `shutdown`.

        >>> import shoal
        >>> with shoal.Executor(1) as executor:
        ...     executor.submit(int, "ff", base=16).result()
        255
        """
        return self._submit(fn, args, kwargs, 0, 0)

    def _submit(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        timeout_ns: int,
        retries: int,
    ) -> Future:
        engine = self._engine
        if engine.closed or engine.broken is not None or engine.forked:
            self._check_open()
        future = self._future_class(engine)
        try:
            engine.submit(future, fn, args, kwargs, timeout_ns, retries)
        except Exception as error:
            if engine.closed:
                raise
            future._deliver(False, error)
        return future

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """An iterator over `fn(*items)` for the zipped iterables, in order.

        timeout: seconds from this call after which asking for a result raises TimeoutError.
        chunksize: how many items are pickled together. buffersize: at most that many items are
        read ahead of the caller. Without a `buffersize`, up to 64 MiB of an input with a length are
        sent immediately; an input without a length, which may be endless, is sent as results are
        fetched. `shutdown` reads the rest of the input; with a `buffersize` it does not, and asking
        for more results raises `PoolClosed`.

        >>> import shoal
        >>> with shoal.Executor(2) as executor:
        ...     list(executor.map(pow, [2, 3], [5, 2]))
        [32, 9]
        """
        return self._map(fn, iterables, timeout, chunksize, buffersize, 0, 0)

    def _map(
        self,
        fn: Callable[..., Any],
        iterables: tuple[Iterable[Any], ...],
        timeout: float | None,
        chunksize: int,
        buffersize: int | None,
        timeout_ns: int,
        retries: int,
    ) -> Iterator[Any]:
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        single = len(iterables) == 1
        items = iter(iterables[0]) if single else zip(*iterables)  # a TypeError comes first
        self._check_open()
        end = None if timeout is None else timeout + time.monotonic()
        lengths = [_engine.length(iterable) for iterable in iterables]
        sized = all(length >= 0 for length in lengths)
        job = self._engine.job(
            fn,
            items,
            order=core.ORDER_ORDERED,
            star=not single,
            chunk=chunksize,
            total=min(lengths) if sized and lengths else -1,
            window=buffersize if buffersize is not None else 0 if sized else _WINDOW,
            timeout_ns=timeout_ns,
            retries=retries,
            eager=True,
            bounded=buffersize is not None,
        )
        self._engine.start_job(job, sized=sized)
        return _results(self._engine, job, end)

    def options(self, *, timeout: float | None = None, retries: int = 0) -> ExecutorOptions:
        """A view of this executor whose tasks have a time limit and are retried after a worker's
        death.

        timeout: seconds a task may run before it is stopped (`TaskTimeout`). retries: how often a
        task whose worker died runs again.

        >>> import shoal
        >>> with shoal.Executor(1) as executor:
        ...     list(executor.options(timeout=5, retries=1).map(abs, [-1, -2]))
        [1, 2]
        """
        return ExecutorOptions(
            self, _engine.check_seconds(timeout, "timeout"), _engine.check_retries(retries)
        )

    # ---- The end ---------------------------------------------------------------------------------

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more tasks, and free all resources once the submitted tasks have ended.

        wait: return when all tasks are done and the workers have ended; otherwise that happens in
        the background. A callback of one of the executor's futures cannot wait: RuntimeError.
        cancel_futures: withdraw tasks that have not begun.

        >>> import shoal
        >>> executor = shoal.Executor(1)
        >>> future = executor.submit(abs, -1)
        >>> executor.shutdown()
        >>> future.done(), future.result()
        (True, 1)
        """
        engine = self._engine
        if engine.forked:
            return
        engine.close()
        if cancel_futures:
            engine.cancel_queued()
        if wait and not engine.in_callback:
            engine.drain()
            engine.finish()
            _open.discard(self)
        elif not engine._agent.ended:
            _finish_behind(engine)
            if wait:
                raise RuntimeError(
                    "a callback can't wait for its own executor, which now shuts down in the"
                    " background; call shutdown(wait=False)"
                )

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> bool | None:
        """`shutdown()`. If Ctrl-C ends the block, all tasks are cancelled, running ones too."""
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self._interrupt()
        return super().__exit__(kind, error, traceback)

    def __repr__(self) -> str:
        engine: Any = self.__dict__.get("_engine")
        if engine is None:
            return f"<{type(self).__name__} not started>"
        state = "forked" if engine.forked else "shut down" if engine.closed else "running"
        return (
            f"<{type(self).__name__} state={state} workers={engine.workers} start={engine.start}>"
        )

    def _interrupt(self) -> None:
        if not self._engine.forked:
            self._engine.close()
            self._engine.interrupt()

    def terminate_workers(self) -> None:
        """Send SIGTERM to the workers and shut down; open futures get `PoolClosed`."""
        self._stop(signal.SIGTERM)

    def kill_workers(self) -> None:
        """Send SIGKILL to the workers and shut down; open futures get `PoolClosed`."""
        self._stop(signal.SIGKILL)

    def _stop(self, number: signal.Signals) -> None:
        engine = self._engine
        if engine.forked or engine._agent.ended:
            return
        engine.close()
        for pid in engine.worker_pids():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
        engine.terminate()
        _open.discard(self)

    def __del__(self) -> None:
        engine = getattr(self, "_engine", None)
        if engine is not None and not engine.closed and not engine.forked:
            engine.close()
            if engine.client.busy or engine._jobs:
                _finish_behind(engine)
            else:
                engine.finish()

    def _check_open(self) -> None:
        engine = self._engine
        if engine.closed and not engine.forked and engine.broken is None:
            from shoal.errors import PoolClosed

            raise PoolClosed("cannot schedule new futures after shutdown")
        engine.check_open()

    # ---- Looking inside --------------------------------------------------------------------------

    def worker_pids(self) -> list[int]:
        """Process ids of the current workers."""
        return self._engine.worker_pids()

    def statistics(self) -> dict[str, Any]:
        """Counters since the executor was made; see `Pool.statistics`."""
        return self._engine.statistics()


@public
class ExecutorOptions:
    """`submit` and `map` with a time limit and retries. `Executor.options` makes it."""

    def __init__(self, executor: Executor, timeout_ns: int, retries: int) -> None:
        self._executor = executor
        self._timeout_ns = timeout_ns
        self._retries = retries

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """As `Executor.submit`."""
        return self._executor._submit(fn, args, kwargs, self._timeout_ns, self._retries)

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """As `Executor.map`; its `timeout` still limits the iteration, not a task."""
        return self._executor._map(
            fn, iterables, timeout, chunksize, buffersize, self._timeout_ns, self._retries
        )


def _start_of(context: Any, start: str | None) -> str:
    """The start method of the workers: `start`, or the one that the context chooses."""
    if context is None:
        return start or "zygote"
    if start is not None:
        raise ValueError(f"give mp_context or start, not both: {context!r} and {start!r}")
    method = context.get_start_method()
    found = _engine.START_OF_METHOD.get(method)
    if found is None:
        known = ", ".join(_engine.START_OF_METHOD)
        raise ValueError(f"shoal can't start workers by {method!r}; its methods are {known}")
    return found


def _results(engine: _engine.Engine, job: Any, end: float | None) -> Iterator[Any]:
    try:
        if end is None:
            while True:
                yield job.next(None, _base.TimeoutError)
        else:
            while True:
                yield job.next(end - time.monotonic(), _base.TimeoutError)
    except StopIteration:
        return
    finally:
        if not job.done and not engine._agent.ended and not engine.forked:
            job.cancel()  # the caller dropped the iterator: tasks that have not begun need not run
            engine._agent.ring()


_finishing: set[threading.Thread] = set()  # each completes the futures of an engine, and ends it


def _finish_behind(engine: _engine.Engine) -> None:
    """End the engine once its futures are done, in a thread that the interpreter's exit joins."""
    thread = threading.Thread(target=_finish, args=(engine,), name="shoal-shutdown", daemon=True)
    _finishing.add(thread)
    try:
        thread.start()
    except BaseException:
        _finishing.discard(thread)
        raise


def _finish(engine: _engine.Engine) -> None:
    try:
        engine.drain()
        engine.finish()
    finally:
        _finishing.discard(threading.current_thread())


_exit_registered = False
_exiting = False


def _register_exit() -> None:
    """Have all futures completed at the interpreter's exit, as the standard library does."""
    global _exit_registered
    if not _exit_registered:
        _exit_registered = True
        threading._register_atexit(_shutdown_all)  # type: ignore[attr-defined]


def exiting() -> bool:
    """Whether the interpreter has begun to exit, so that no task can be sent any more."""
    return _exiting


def _program_was_interrupted() -> bool:
    """Whether Ctrl-C ended the main module. At an interactive prompt this cannot be known:
    `sys.last_type` is then the type of the last error printed, which may be an old one.
    """
    last = getattr(sys, "last_type", None)
    return last is not None and issubclass(last, KeyboardInterrupt) and not hasattr(sys, "ps1")


def _shutdown_all() -> None:
    global _exiting
    _exiting = True
    for executor in _engine.all_of(_open):
        if _program_was_interrupted():
            executor._interrupt()
        executor.shutdown()
    for thread in list(_finishing):
        thread.join()
