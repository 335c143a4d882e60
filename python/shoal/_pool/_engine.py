# SPDX-License-Identifier: Apache-2.0
"""The engine of a pool: its client in shared memory, its agent, and its shutdown. `Pool` and
`Executor` are thin layers over it.

A thread that waits for a result collects results itself. There are two helper threads, for the
cases in which that is not enough:
- The *collector* runs while callbacks or outside waiters (`concurrent.futures.wait`, asyncio) must
  be told of results that no thread fetches. It is joined before every fork.
- A *feeder* reads the input of an `imap` whose iterator may block. It cannot be joined, because it
  runs the user's iterator.

State: running -> closed (no new tasks) -> ended (no process left), or terminated at any time. An
engine belongs to the process that made it; in a forked child its methods only raise ForkedPool.
Design: docs/design/pool.md
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import weakref

from shoal._pool import _client_hooks
from shoal._runtime import _cpus, _limits, _locks
from shoal._runtime._native import core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from shoal._pool._sink import Sink

START_METHODS = ("zygote", "fork", "spawn")
START_OF_METHOD = {"fork": "fork", "spawn": "spawn", "forkserver": "zygote"}  # of multiprocessing
GRACE = 2.0  # seconds between interrupting a task and killing its worker
BYTES_IN_FLIGHT = 64 * 1024 * 1024
MAX_WORKERS = _cpus.MAX_WORKERS
_WIDEST_WINDOW = 1 << 62  # items, more than any input has

_engines: weakref.WeakSet[Engine] = weakref.WeakSet()
_left_to_results: set[Engine] = set()  # their pool object is gone, but they have open tasks


def all_of(members: weakref.WeakSet[Any]) -> list[Any]:
    """The current members. Iterating the set itself fails when another thread adds to it."""
    references: list[weakref.ref[Any]] = list(members.data)  # type: ignore[attr-defined]
    return [member for reference in references if (member := reference()) is not None]


def function_name(function: Any) -> str:
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    module = getattr(function, "__module__", None)
    return f"{module}.{name}" if module and module != "builtins" else str(name)


def length(iterable: Any) -> int:
    """`len(iterable)`, or -1 if it is unknown: stream data loaders have a `__len__` that raises."""
    if not hasattr(iterable, "__len__"):
        return -1
    try:
        return len(iterable)
    except Exception:
        return -1


def check_seconds(value: float | None, what: str) -> int:
    """A time limit in seconds as nanoseconds, 0 for None."""
    if value is None:
        return 0
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not value > 0:
        raise ValueError(f"{what} must be a positive number of seconds or None, not {value!r}")
    return max(1, int(min(value, 1e9) * 1e9))


def check_retries(value: int) -> int:
    if not isinstance(value, int) or not 0 <= value <= 30:
        raise ValueError(f"retries must be an int from 0 to 30, not {value!r}")
    return value


class Engine:
    """One pool. Thread safe; every method but `__init__` may be called from any thread of the
    process.
    """

    _hooks_class = _client_hooks.ClientHooks
    _first_workers: int | None = None  # how many workers start with the pool; None: all
    results_by_name = False  # a result that the standard library cannot pickle is an error
    closed_error: type[Exception] | None = None  # what a closed pool raises; None: PoolClosed
    start_method: str | None = None  # the multiprocessing start method of a drop-in pool
    # True: a chunk is one task, as in the standard library. False: its items are only pickled
    # together.
    chunks_are_tasks = False
    daemons = True  # workers are daemons: their tasks cannot start multiprocessing processes
    # When a result iterator and its pool are dropped: True reads the rest of the input, False
    # cancels the job.
    reads_unfetched = False
    _let_go = False  # the pool object is gone; only open tasks keep the engine alive

    def __init__(
        self,
        workers: int | None,
        initializer: Callable[..., object] | None,
        initargs: Iterable[Any],
        tasks_per_worker: int | None,
        start: str,
        name: str,
    ) -> None:
        self.workers = _check_workers(workers)
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer must be callable, not {initializer!r}")
        if tasks_per_worker is not None and (
            not isinstance(tasks_per_worker, int) or tasks_per_worker < 1
        ):
            raise ValueError(
                "the number of tasks per worker must be an int >= 1 or None, "
                f"not {tasks_per_worker!r}"
            )
        if start not in START_METHODS:
            raise ValueError(f"start must be one of {', '.join(START_METHODS)}, not {start!r}")
        _ready_to_start()
        self.start = start
        self.name = name
        self.closed = False
        self.forked = False
        self.broken: BaseException | None = None
        self._lock = _locks.RLock()  # held only briefly
        # Held while the agent starts or ends, which includes waiting for the collector; _lock must
        # never be held for that.
        self._process_lock = _locks.RLock()
        self._ending = False
        # functions kept in the pool, by `Definitions.function_key`
        self._stored: dict[Any, tuple[Any, str]] = {}
        # jobs whose input is not exhausted; `start_job` adds them
        self._jobs: set[Any] = set()
        # the subset of `_jobs` whose result iterator is gone: their results are never fetched
        self._unfetched: set[Any] = set()
        self._collector: threading.Thread | None = None
        # True: the collector collects results. False: it only sends the remaining input of jobs.
        self._collector_tells = False
        self._stop_collector = False
        self._tellers: list[int] = []  # ids of the threads that are running callbacks
        from shoal._pickling._definitions import Definitions

        self.definitions = Definitions()
        self._hooks = self._hooks_class(self.definitions)
        me = weakref.ref(self)
        self.client = core.Client(
            self.workers,
            tasks_per_worker or 0,
            int(GRACE * 1e9),
            self._hooks,
            self.definitions._log,
            lambda kind: _trouble(me, kind),
        )
        if self._first_workers is not None:
            self.client.want(self._first_workers)
        self._startup = None if initializer is None else (initializer, tuple(initargs))
        self._agent: Any = self._make_agent()
        try:
            with self._process_lock, _limits.named("cannot start a pool"):
                self._agent.start(self, running_collectors())
            _engines.add(self)
            _register_at_exit()
        except BaseException:  # Ctrl-C, most likely: leave no process behind
            self.client.set_phase(core.PHASE_STOPPING)
            self._agent.kill(self.client)
            raise

    def _make_agent(self) -> Any:
        """The object that starts and watches the workers; it has the methods of `AgentProcess`."""
        from shoal._workers._agent_process import AgentProcess

        return AgentProcess()

    # ---- Starting --------------------------------------------------------------------------------

    def store_startup(self) -> None:
        """Store the initializer for the workers. Call it after the template is decided, because the
        encoding depends on the definitions that workers already have.
        """
        if self._startup is None:
            return
        from shoal._pickling import _pickler

        payload = _pickler.dumps_in_band(self._startup, self.definitions)
        self.client.set_startup(payload)

    def preparation(self) -> dict[str, Any] | None:
        """What a fresh interpreter is told in addition to `_context.capture()`: see there."""
        return None

    # ---- Tasks -----------------------------------------------------------------------------------

    @property
    def takes_tasks(self) -> bool:
        return not (self.closed or self.forked or self.broken is not None)

    def check_open(self) -> None:
        if not self.takes_tasks:
            self._raise_closed()

    def check_usable(self) -> None:
        """Results may still be fetched after close, but not in the child of a fork."""
        if self.forked:
            self._raise_closed()

    def _raise_closed(self) -> None:
        from shoal import errors

        if self.forked:
            raise errors.ForkedPool(_client_hooks.FORKED)
        if self.broken is not None:
            raise self.broken
        kind = self.closed_error or errors.PoolClosed
        raise kind("Pool not running: it was closed, terminated or shut down; make a new one")

    def function(self, callable_: Callable[..., Any]) -> tuple[Any, str]:
        """The stored form of a function (None: it must be sent with each task) and its name."""
        key = self.definitions.function_key(callable_)
        entry = self._stored.get(key)
        if entry is not None and key is not None:
            return entry
        if not callable(callable_):
            raise TypeError(f"{callable_!r} is not callable")
        name = function_name(callable_)
        if key is None:
            return None, name
        for token in self.definitions.dropped_tokens():
            self._stored.pop(("cached", token), None)
        entry = self.client.add_function(self.definitions.encode_function(callable_)), name
        self._stored[key] = entry
        return entry

    def call(
        self,
        callable_: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None,
        timeout_ns: int,
        retries: int,
    ) -> Any:
        """Send one call and wait for its outcome."""
        stored, name = self.function(callable_)
        try:
            return self.client.call(stored, callable_, name, args, kwargs, timeout_ns, retries)
        except KeyboardInterrupt:
            self._agent.ring()  # stop the task, because this thread no longer waits for it
            raise

    def submit(
        self,
        sink: Sink,
        callable_: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None,
        timeout_ns: int = 0,
        retries: int = 0,
    ) -> int:
        """Send one call; its outcome goes to the sink. Returns its ticket."""
        stored, name = self.function(callable_)
        ticket: int = self.client.submit(
            sink, stored, callable_, name, args, kwargs, timeout_ns, retries
        )
        if ticket >> 63:
            self.need_collector()  # the call waits for a free slot; the collector will send it
        return ticket

    def job(
        self,
        callable_: Callable[..., Any],
        items: Any,
        *,
        order: int,
        star: bool = False,
        chunk: int = 1,
        total: int = -1,
        window: int = 0,
        timeout_ns: int = 0,
        retries: int = 0,
        eager: bool = False,
        on_done: Callable[[], object] | None = None,
        bounded: bool = False,
        chunk_asked: bool = True,
    ) -> Any:
        """A map over an iterator; see core.Job. `bounded`: the caller gave the window;
        `chunk_asked`: the caller gave the chunk size. A chunk that is larger than any batch can be
        is sent in pieces.
        """
        chunk_is = core.CHUNK_PACKING
        if self.chunks_are_tasks:
            chunk_is = core.CHUNK_TASKS if chunk_asked else core.CHUNK_DEFAULT_TASKS
        stored, name = self.function(callable_)
        return core.Job(
            self.client,
            items,
            function=stored,
            callable=callable_,
            name=name,
            order=order,
            flags=core.BATCH_STAR_ITEMS if star else 0,
            chunk=min(chunk, core.MAX_ITEMS_PER_UNIT),
            total=total,
            window=min(window, _WIDEST_WINDOW),
            bounded=bounded,
            byte_limit=BYTES_IN_FLIGHT,
            timeout_ns=timeout_ns,
            retries=retries,
            eager=eager,
            on_done=on_done,
            chunk_is=chunk_is,
        )

    def start_job(self, job: Any, may_wait: bool = False, sized: bool = True) -> None:
        """Send as many items as the bounds allow now. The rest is sent when results are fetched,
        when the workers are about to run out of tasks (only if `sized`: other inputs are read by
        the caller's thread), or at the end. An input that `may_wait` is read by a feeder thread,
        because it may wait for results that this thread fetches.
        """
        if may_wait:
            job.hand_over()
            _start(threading.Thread(target=job.feed, name="shoal-feeder", daemon=True))
        else:
            job.fill()
        if not job.exhausted:
            with self._lock:
                self._jobs = {other for other in self._jobs if not other.exhausted}
                self._unfetched &= self._jobs
                self._jobs.add(job)
            if sized and not may_wait:
                self.need_collector(to_tell=False)  # the caller may not fetch results for a while

    def cancel_queued(self) -> None:
        """Withdraw every task that has not begun."""
        if self._agent.ended:
            return
        with self._lock:
            jobs, self._jobs = self._jobs, set()
        for job in jobs:
            job.cancel()
        self.client.cancel_all(False)

    def interrupt(self) -> None:
        """Withdraw the tasks that have not begun and stop the running ones, as `cancel` does. This
        is for Ctrl-C, which the workers themselves ignore.
        """
        self.cancel_queued()
        if not self._agent.ended:
            self.client.cancel_all(True)
            self._agent.ring()

    # ---- The collector ---------------------------------------------------------------------------

    def need_collector(self, to_tell: bool = True) -> None:
        """Make sure that a collector runs. With `to_tell` it collects results, because somebody
        must be told of them without fetching them. Without `to_tell` it only sends more input when
        the workers are about to run out of tasks.
        """
        with self._lock:  # needed to read `_collector` too: the collector may be about to exit
            if to_tell and not self._collector_tells:
                self._collector_tells = True
                self.client.wake()
            if self._collector is None and not self.forked:
                self._stop_collector = False
                collector = threading.Thread(
                    target=_collect_for,
                    args=(weakref.ref(self),),
                    name="shoal-collector",
                    daemon=True,
                )
                self._collector = collector
                try:
                    _start(collector)
                except BaseException:
                    self._collector = None
                    self._collector_tells = False
                    raise

    @property
    def collected_for(self) -> bool:
        """Whether a collector thread other than the calling thread collects results. If so, the
        caller must leave collecting, and running users' callbacks, to that thread.
        """
        collector = self._collector
        tells = collector is not None and self._collector_tells
        return tells and collector is not threading.current_thread()

    def collect_until_idle(self) -> bool:
        """One turn of the collector's loop; False when the collector is not needed any more."""
        if self._let_go:
            self._settle_unfetched()
        sent = self.feed_jobs()
        if self._collector_tells:
            self.client.collect(1.0)
        else:
            self.client.wait_for_hunger(sent)
            self.client.collect(0)
        with self._lock:
            needed = self._jobs or self._collector_tells and self.client.busy
            if self._stop_collector or self.client.ended or not needed:
                self._collector = None
                self._collector_tells = False
                return False
        return True

    @contextlib.contextmanager
    def telling(self) -> Iterator[None]:
        """Marks the calling thread as running a callback of an outcome. The outcome counts as open
        until the callback has returned.
        """
        me = threading.get_ident()
        self._tellers.append(me)
        try:
            yield
        finally:
            self._tellers.remove(me)

    @property
    def in_callback(self) -> bool:
        """Whether the calling thread is running a callback. Waiting there for all outcomes would be
        a deadlock, because the callback's own outcome is still open.
        """
        return threading.get_ident() in self._tellers

    def feed_jobs(self) -> bool:
        """Send as much of the jobs' input as the bounds allow; returns whether any was sent."""
        sent = False
        for job in list(self._jobs):
            sent = job.fill() or sent
            if job.exhausted:
                with self._lock:
                    self._jobs.discard(job)
                    self._unfetched.discard(job)
        return sent

    def stop_collector(self) -> bool:
        """Stop the collector, before a fork and at the end. Waits one second at most: a callback
        that runs longer may be waiting for the calling thread.
        """
        thread = self._collector
        if thread is None or thread is threading.current_thread():
            return False
        self._stop_collector = True
        patience = time.monotonic() + 1
        while thread.is_alive() and time.monotonic() < patience:
            self.client.wake()
            thread.join(0.001)
        return True

    # ---- Without its pool ------------------------------------------------------------------------

    def let_go(self) -> None:
        """The pool object is gone. With open tasks the engine goes on until they are done, because
        their results may still be fetched, and then ends by itself. Without any it ends now.
        """
        if self._is_open() and not sys.is_finalizing():
            with self._lock:
                self._let_go = True
                _left_to_results.add(self)
            try:
                return self.need_collector()
            except Exception:  # no thread can be started: the interpreter is exiting
                pass
        self.terminate()

    def end_without_pool(self) -> None:
        """Called by the collector when it finds nothing to do: end the engine if its pool object is
        gone and no task is open.
        """
        if self._let_go and not self._stop_collector and not self._is_open():
            self.terminate()

    def not_fetched(self, job: Any) -> None:
        """The result iterator of a job was dropped before the job's input was exhausted."""
        with self._lock:
            if job in self._jobs:
                self._unfetched.add(job)
        if self._let_go:
            self.client.wake()

    def _settle_unfetched(self) -> None:
        with self._lock:
            jobs, self._unfetched = self._unfetched, set()
        for job in jobs:
            if self.reads_unfetched:
                job.drain()
            else:
                job.cancel()
                self._agent.ring()

    def _is_open(self) -> bool:
        if self._agent.ended or self.client.ended:
            return False
        return bool(self.client.busy or self._jobs)

    # ---- The end ---------------------------------------------------------------------------------

    def close(self) -> None:
        self.closed = True

    def drain(self, deadline: float | None = None) -> bool:
        """Collect until every outcome is known; False when the deadline (time.monotonic) passes.

        When the pool gives up, jobs whose input another thread is reading are left to that thread.
        """
        while True:
            for job in list(self._jobs):
                job.drain()
            self.feed_jobs()
            if self.client.ended or not (self.client.busy or self._jobs):
                return True
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            self.client.collect(0.1 if left is None else min(left, 0.1))

    def terminate(self) -> None:
        """Stop now: running tasks are killed, open results become errors."""
        self.closed = True
        if self.forked:
            return
        self._end(core.PHASE_STOPPING)

    def finish(self) -> None:
        """After `drain()`: end the workers and free the memory. Tasks that another thread submitted
        while the pool was being closed are completed first.
        """
        self.closed = True
        while not self.forked and not self._end(core.PHASE_DRAINING):
            self.drain()

    def _end(self, phase: int) -> bool:
        """End the engine. False if `phase` is PHASE_DRAINING and tasks are still open."""
        with self._process_lock:
            if self._agent.ended or self._ending:
                return True
            if phase == core.PHASE_DRAINING and not self.client.end_when_idle():
                return False
            self._ending = True
            try:
                self.stop_collector()
                self.client.collect(0)  # results that have arrived by now still count
                self.client.end()
                self.client.abandon(_terminated)
                self.client.set_phase(phase)
                self._agent.wait_for_end(self.client, phase == core.PHASE_STOPPING)
            finally:
                self._ending = False  # if interrupted, `_end` can be called again
            self._jobs.clear()
            self._unfetched.clear()
            self._stored.clear()
            self.client.release()
            _engines.discard(self)
            _left_to_results.discard(self)
            return True

    def no_outcome(self) -> BaseException:
        """What a wait raises for an outcome that cannot come any more, since the pool is gone."""
        error: BaseException = self._hooks.closed()
        return error

    def worker_pids(self) -> list[int]:
        self.check_usable()
        if self._agent.ended:
            return []
        return [seat["pid"] for seat in self.client.seats() if seat["pid"]]

    def statistics(self) -> dict[str, Any]:
        self.check_usable()
        seats = [] if self._agent.ended else self.client.seats()
        totals = {
            key: sum(seat[key] for seat in seats)
            for key in (
                "tasks",
                "errors",
                "steals",
                "sleeps",
                "bytes_in",
                "bytes_out",
                "run_seconds",
                "decode_seconds",
                "encode_seconds",
                "wait_seconds",
            )
        }
        return {
            "workers": len([seat for seat in seats if seat["pid"]]),
            "start": self.start,
            "template": str(self._agent.template),
            **totals,
            "per_worker": seats,
            "memory": core.arena_statistics(),
        }


def _terminated() -> BaseException:
    from shoal.errors import PoolClosed

    return PoolClosed("the pool was terminated before this task had finished")


def _start(thread: threading.Thread) -> None:
    """Start the thread. From Python 3.12 on `start` raises while the interpreter exits."""
    try:
        thread.start()
    except RuntimeError as error:
        if "shutdown" not in str(error):
            raise
        from shoal.errors import PoolClosed

        raise PoolClosed("the interpreter is exiting: this pool takes no more tasks") from error


def _collect_for(reference: weakref.ref[Engine]) -> None:
    """The main function of a collector thread. It references the engine only during a turn, so that
    the engine can be collected in between.
    """
    reported = False
    while True:
        engine = reference()
        try:
            if engine is None:
                return
            if not engine.collect_until_idle():
                engine.end_without_pool()
                return
        except BaseException:  # others rely on this thread: report the first error, and continue
            if not reported:
                reported = True
                sys.excepthook(*sys.exc_info())
            time.sleep(0.02)
        del engine


def _trouble(reference: weakref.ref[Engine], kind: str) -> None:
    """Called by the core during a wait, when the agent has died or no worker can start."""
    engine = reference()
    if engine is None or engine.closed and engine._agent.ended:
        return
    if kind == "agent":
        if engine.broken is not None:
            return
        engine._agent.restart(engine, running_collectors())
        if not engine._agent.is_barren():
            return
    if engine.broken is None:
        engine.broken = engine._hooks.broken = _start_failure(engine)
        engine.client.end()
        engine.client.abandon(engine._hooks.closed)


def _start_failure(engine: Engine) -> BaseException:
    from shoal.errors import InitializerFailed

    encoded = engine.client.take_failure()
    if encoded is None:
        return InitializerFailed(
            "workers died before they could run tasks, several times in a row; the pool gave up"
        )
    from shoal._pickling._exceptions import decode_exception

    cause = decode_exception(encoded)
    error = InitializerFailed(
        "several fresh workers in a row could not be initialized, and the pool gave up: "
        f"{type(cause).__name__}: {cause}"
    )
    error.__cause__ = cause
    return error


def _check_workers(workers: int | None) -> int:
    if workers is None:
        return min(_cpus.cpu_count(), MAX_WORKERS)
    if not isinstance(workers, int) or isinstance(workers, bool):
        raise TypeError(f"the number of workers must be an int, not {workers!r}")
    if not 1 <= workers <= MAX_WORKERS:
        if workers < 1:
            raise ValueError(f"Number of processes must be at least 1, not {workers}")
        raise ValueError(f"the number of workers must be at most {MAX_WORKERS}, not {workers}")
    return workers


def _ready_to_start() -> None:
    if sys.is_finalizing():
        from shoal.errors import PoolClosed

        raise PoolClosed("can't make a pool at interpreter shutdown")


def running_collectors() -> int:
    """How many collector threads run; they are all stopped before a fork."""
    return sum(1 for engine in all_of(_engines) if engine._collector is not None)


# ---- Forks and the interpreter's exit ------------------------------------------------------------

_restart_after_fork: list[tuple[Engine, bool]] = []


def _before_fork() -> None:
    for engine in all_of(_engines):
        tells = engine._collector_tells
        if engine.stop_collector():
            _restart_after_fork.append((engine, tells))


def _after_fork_in_parent() -> None:
    while _restart_after_fork:
        engine, tells = _restart_after_fork.pop()
        engine.need_collector(tells)


def _after_fork_in_child() -> None:
    _restart_after_fork.clear()
    for engine in all_of(_engines):
        engine.forked = engine._hooks.forked = True
        engine._lock = _locks.RLock()
        engine._process_lock = _locks.RLock()
        engine._collector = None
        engine._collector_tells = False
        engine._agent.ended = True
        engine.client.forget()
    _engines.clear()
    _left_to_results.clear()


os.register_at_fork(
    before=core.fork_hook(_before_fork),
    after_in_parent=core.fork_hook(_after_fork_in_parent),
    after_in_child=_after_fork_in_child,
)

_exit_registered = False


def _register_at_exit() -> None:
    global _exit_registered
    if not _exit_registered:
        _exit_registered = True
        from multiprocessing.util import Finalize

        # The priority of the standard library's pool: before other processes and queues are closed.
        Finalize(None, _terminate_all, exitpriority=15)


def _terminate_all() -> None:
    for engine in all_of(_engines):
        engine.terminate()
