# SPDX-License-Identifier: Apache-2.0
"""`shoal.Pool`: `multiprocessing.pool.Pool` on shared memory."""

from __future__ import annotations

import warnings

from shoal._pool import _engine, _results
from shoal._runtime._native import core
from shoal._runtime._public import public

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Any

_WINDOW = 1 << 16  # the most items that imap reads from its input ahead of the caller
# The input of an imap with at most this many items is sent to the workers immediately. A longer
# input is sent as the workers need it, so tasks of a later map may run before the last tasks of it.
_SENT_WHOLE = 1024


@public
class Pool:
    """A pool of worker processes: `multiprocessing.pool.Pool` with nothing on pipes.

    Parameters
    ----------
    processes: number of workers; None: `shoal.cpu_count()`, which is PYTHON_CPU_COUNT or the CPUs
        that affinity and the cgroup quota allow.
    initializer, initargs: called in each worker before its first task. When it fails in several
        fresh workers in a row, the pool gives up with `InitializerFailed`.
    maxtasksperchild: a worker is replaced after that many tasks (chunks, for the map family).
    start: "zygote" (default): workers are forked from a template process that has imported what
        this program has, and need no `__main__` guard; "fork": workers are forked from a copy of
        this process; "spawn": workers are fresh interpreters.

    Every task method takes two keyword arguments. `timeout=`: seconds a task may run before it is
    stopped with `TaskTimeout`. `retries=`: how often a task runs again after its worker died,
    before it fails with `WorkerDied`. A worker's death fails only the task that it ran. Arguments
    and results are copied once into shared memory; large numpy arrays are read without another
    copy. Use the pool as a context manager: leaving the block terminates the pool, as with the
    standard library's.

    >>> import shoal
    >>> with shoal.Pool(2) as pool:
    ...     print(pool.map(len, ["a", "bb", "ccc"]))
    [1, 2, 3]
    """

    _name = "Shoal"
    # what the asynchronous methods return
    _call_result: type[Any] = _results.AsyncResult
    _map_result: type[Any] = _results.MapResult
    _iterator: type[Any] = _results.IMapIterator
    _unordered_iterator: type[Any] = _results.IMapIterator

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        *,
        start: str = "zygote",
    ) -> None:
        self._engine = _engine.Engine(
            processes, initializer, initargs, maxtasksperchild, start, self._name
        )

    # ---- One call --------------------------------------------------------------------------------

    def apply(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: dict[str, Any] | None = None,
        *,
        timeout: float | None = None,
        retries: int = 0,
    ) -> Any:
        """Call `func(*args, **kwds)` in a worker and return its result. One wake-up each way.

        Raises what the task raises, with the worker's traceback as its cause; `WorkerDied`,
        `TaskTimeout`, `PoolClosed`.

        >>> import shoal
        >>> with shoal.Pool(1) as pool:
        ...     pool.apply(pow, (2, 5)), pool.apply(int, ("ff",), {"base": 16}, timeout=5)
        (32, 255)
        """
        engine = self._engine
        if engine.closed or engine.broken is not None or engine.forked:
            engine.check_open()
        limit = 0 if timeout is None else _engine.check_seconds(timeout, "timeout")
        if retries:
            _engine.check_retries(retries)
        return engine.call(func, tuple(args), kwds, limit, retries)

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: dict[str, Any] | None = None,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        *,
        timeout: float | None = None,
        retries: int = 0,
    ) -> _results.AsyncResult:
        """Like `apply`, but returns an `AsyncResult` immediately. Arguments that cannot be pickled
        raise here.

        `callback(result)` or `error_callback(exception)` runs in a thread of this process.

        >>> import shoal
        >>> with shoal.Pool(1) as pool:
        ...     result = pool.apply_async(divmod, (7, 2), callback=print)
        ...     result.wait()
        (3, 1)
        """
        engine = self._engine
        if engine.closed or engine.broken is not None or engine.forked:
            engine.check_open()
        result: _results.AsyncResult = self._call_result(engine, callback, error_callback)
        limit = 0 if timeout is None else _engine.check_seconds(timeout, "timeout")
        if retries:
            _engine.check_retries(retries)
        engine.submit(result, func, tuple(args), kwds, limit, retries)
        if callback is not None or error_callback is not None:
            engine.need_collector()
        return result

    # ---- Maps ------------------------------------------------------------------------------------

    def map(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        *,
        timeout: float | None = None,
        retries: int = 0,
    ) -> list[Any]:
        """`[func(x) for x in iterable]` in the workers. Raises the first item's exception after all
        have ended.

        `chunksize`: how many items are pickled together. Scheduling does not depend on it: batches
        are sized by the cost of the tasks, and idle workers steal tasks that others have not begun.

        >>> import shoal
        >>> offset = 10
        >>> with shoal.Pool(2) as pool:
        ...     pool.map(lambda x: x + offset, range(3), timeout=5, retries=1)
        [10, 11, 12]
        """
        return self._map(func, iterable, chunksize, False, timeout, retries)

    def starmap(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        *,
        timeout: float | None = None,
        retries: int = 0,
    ) -> list[Any]:
        """`[func(*x) for x in iterable]` in the workers; otherwise like `map`.

        >>> import shoal
        >>> with shoal.Pool(2) as pool:
        ...     pool.starmap(pow, [(2, 3), (3, 2)])
        [8, 9]
        """
        return self._map(func, iterable, chunksize, True, timeout, retries)

    def map_async(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        *,
        timeout: float | None = None,
        retries: int = 0,
    ) -> _results.MapResult:
        """Like `map`, but returns a `MapResult` immediately. Callbacks as for `apply_async`."""
        return self._map_async(
            func, iterable, chunksize, False, callback, error_callback, timeout, retries
        )

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        *,
        timeout: float | None = None,
        retries: int = 0,
    ) -> _results.MapResult:
        """Like `starmap`, but returns a `MapResult` immediately. Callbacks as for `apply_async`."""
        return self._map_async(
            func, iterable, chunksize, True, callback, error_callback, timeout, retries
        )

    def imap(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int = 1,
        *,
        timeout: float | None = None,
        retries: int = 0,
        buffersize: int | None = None,
    ) -> _results.IMapIterator:
        """An iterator over the results, in order. The input may be endless, and it may block, even
        on earlier results of this iterator: an input without `len()` is read by a thread.

        At most `buffersize` items (default 65,536) and 64 MiB of arguments are read ahead of the
        caller. `join` reads the input to its end; with a `buffersize` it reads no further, and
        asking for more results than were sent raises `PoolClosed`.

        A task's exception is raised in the place of its result; the iteration can continue after
        it.

        >>> import itertools, shoal
        >>> with shoal.Pool(2) as pool:
        ...     squares = pool.imap(lambda x: x * x, itertools.count())
        ...     list(itertools.islice(squares, 4))
        [0, 1, 4, 9]
        """
        return self._imap(
            func, iterable, chunksize, core.ORDER_ORDERED, timeout, retries, buffersize
        )

    def imap_unordered(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int = 1,
        *,
        timeout: float | None = None,
        retries: int = 0,
        buffersize: int | None = None,
    ) -> _results.IMapIterator:
        """Like `imap`, but yields results in the order in which tasks end.

        >>> import shoal
        >>> with shoal.Pool(2) as pool:
        ...     sorted(pool.imap_unordered(abs, range(-3, 0)))
        [1, 2, 3]
        """
        return self._imap(
            func, iterable, chunksize, core.ORDER_UNORDERED, timeout, retries, buffersize
        )

    def _list_job(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None,
        star: bool,
        timeout: float | None,
        retries: int,
        eager: bool,
        on_done: Callable[[], object] | None,
    ) -> Any:
        self._engine.check_open()
        items = iterable if hasattr(iterable, "__len__") else list(iterable)
        count = len(items)  # type: ignore[arg-type]
        return self._engine.job(
            func,
            iter(items),
            order=core.ORDER_LIST,
            star=star,
            chunk=_chunk(chunksize, count, self._engine.workers),
            chunk_asked=chunksize is not None,
            total=count,
            timeout_ns=_engine.check_seconds(timeout, "timeout"),
            retries=_engine.check_retries(retries),
            eager=eager,
            on_done=on_done,
        )

    def _map(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None,
        star: bool,
        timeout: float | None,
        retries: int,
    ) -> list[Any]:
        job = self._list_job(func, iterable, chunksize, star, timeout, retries, False, None)
        try:
            job.wait(None)
        except BaseException:  # Ctrl-C, most likely: the remaining results will not be fetched
            job.cancel()
            self._engine._agent.ring()
            raise
        results: list[Any] = job.results()
        return results

    def _map_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None,
        star: bool,
        callback: Callable[[list[Any]], object] | None,
        error_callback: Callable[[BaseException], object] | None,
        timeout: float | None,
        retries: int,
    ) -> _results.MapResult:
        result: _results.MapResult = self._map_result(self._engine, callback, error_callback)
        job = self._list_job(
            func, iterable, chunksize, star, timeout, retries, True, result._finished
        )
        result._work = job
        self._engine.start_job(job)
        if job.done:
            result._finished()
        if callback is not None or error_callback is not None or not job.exhausted:
            self._engine.need_collector()
        return result

    def _imap(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int,
        order: int,
        timeout: float | None,
        retries: int,
        buffersize: int | None,
    ) -> _results.IMapIterator:
        self._engine.check_open()
        if chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize:n}")
        if buffersize is not None and buffersize < 1:
            raise ValueError(f"buffersize must be at least 1 or None, not {buffersize}")
        total = _engine.length(iterable)
        job = self._engine.job(
            func,
            iter(iterable),
            order=order,
            chunk=chunksize,
            total=total,
            window=max(buffersize or _WINDOW, chunksize),
            bounded=buffersize is not None,
            timeout_ns=_engine.check_seconds(timeout, "timeout"),
            retries=_engine.check_retries(retries),
            eager=0 <= total <= _SENT_WHOLE,
        )
        self._engine.start_job(job, may_wait=total < 0)
        kind = self._iterator if order == core.ORDER_ORDERED else self._unordered_iterator
        results: _results.IMapIterator = kind(self._engine, job)
        return results

    # ---- The end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Accept no more tasks. Submitted tasks still run."""
        self._engine.close()

    def terminate(self) -> None:
        """Stop now: running tasks are killed, open results raise `PoolClosed`."""
        self._engine.terminate()

    def join(self) -> None:
        """Wait for all tasks and all workers to end. Raises ValueError unless `close()` or
        `terminate()` was called before.
        """
        engine = self._engine
        if not engine.closed:
            raise ValueError("Pool is still running: call close() or terminate() before join()")
        if engine.forked or engine._agent.ended:
            return
        engine.drain()
        engine.finish()

    def __enter__(self) -> Pool:
        self._engine.check_open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.terminate()

    def __del__(self) -> None:
        engine = getattr(self, "_engine", None)
        if engine is None or engine._agent.ended or engine.forked:
            return
        try:
            if not engine.closed:
                text = f"unclosed running shoal pool {self!r}"
                warnings.warn(text, ResourceWarning, source=self, stacklevel=2)
        finally:  # even if the warning is raised as an error
            engine.let_go()

    def __reduce__(self) -> Any:
        raise NotImplementedError(
            "pool objects cannot be passed between processes or pickled; make a pool in the task"
        )

    def __repr__(self) -> str:
        engine = getattr(self, "_engine", None)
        if engine is None:
            return f"<{type(self).__name__} uninitialized>"
        state = "forked" if engine.forked else "closed" if engine.closed else "running"
        return (
            f"<{type(self).__name__} state={state} workers={engine.workers} start={engine.start}>"
        )

    # ---- Looking inside --------------------------------------------------------------------------

    def worker_pids(self) -> list[int]:
        """Process ids of the current workers."""
        return self._engine.worker_pids()

    def statistics(self) -> dict[str, Any]:
        """Counters since the pool was made: tasks, bytes, memory, and the seconds spent running,
        waiting, encoding and decoding.

        `run_seconds` is time inside tasks, `wait_seconds` time without a task; `per_worker` has the
        same counters for each worker, `memory` describes the contents of the program's shared
        memory. Counting adds no system call to a task; reading costs about 1 us per worker.

        >>> import shoal
        >>> with shoal.Pool(1) as pool:
        ...     _ = pool.map(abs, range(10))
        ...     pool.statistics()["tasks"]
        10
        """
        return self._engine.statistics()


def _chunk(chunksize: int | None, count: int, workers: int) -> int:
    """How many items are pickled together; by default as many as in the standard library."""
    if chunksize is not None:
        return max(1, chunksize)
    size, extra = divmod(count, workers * 4)
    return max(1, size + (1 if extra else 0))
