# SPDX-License-Identifier: Apache-2.0
"""The engine of a pool: its client in shared memory, its agent, and its end. `Pool` and `Executor`
are thin over it.

The thread that waits collects; helper threads exist only where that is not enough. A *collector*,
while callbacks or waiters from outside (`concurrent.futures.wait`, asyncio) must hear of results
that nobody fetches; it is joined before every fork. A *feeder*, while the input of an `imap` that
may wait is read; it cannot be joined, as it runs the user's iterator.

State: running -> closed (no new tasks) -> ended (no process left), or terminated at any time. An
engine belongs to the process that made it; in the child of a fork it only raises ForkedPool.
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
_left_to_results: set[Engine] = set()  # have lost their pool, and have something open


def all_of(members: weakref.WeakSet[Any]) -> list[Any]:
    """The members now. Iterating the set itself fails when another thread adds to it."""
    references: list[weakref.ref[Any]] = list(members.data)  # type: ignore[attr-defined]
    return [member for reference in references if (member := reference()) is not None]


def function_name(function: Any) -> str:
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    module = getattr(function, "__module__", None)
    return f"{module}.{name}" if module and module != "builtins" else str(name)


def length(iterable: Any) -> int:
    """`len(iterable)`, -1 if it is not known: loaders of streams have a `__len__` that raises."""
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
    _first_workers: int | None = None  # how many start at once; None: all
    results_by_name = False  # what the standard library cannot pickle is no result
    closed_error: type[Exception] | None = None  # what a closed pool raises; None: PoolClosed
    start_method: str | None = None  # that of multiprocessing's to which the pool belongs
    # What an explicit chunk is: one task, as in the standard library, or just pickled together.
    chunks_are_tasks = False
    daemons = True  # workers are pool workers: their tasks start no processes of multiprocessing's
    # An input whose iterator is gone: is it read to its end all the same, or given up?
    reads_unfetched = False
    _let_go = False  # the pool's object is gone, and only what is open keeps the engine

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
        self._lock = _locks.RLock()  # held for moments
        # held while the agent starts or ends; nothing waits for the collector under _lock
        self._process_lock = _locks.RLock()
        self._ending = False
        self._stored: dict[Any, tuple[Any, str]] = {}  # functions kept in the pool, by token
        # jobs whose input is not used up and that nobody waits for yet
        self._jobs: set[Any] = set()
        # of these, jobs whose iterator is gone: nobody will fetch their results
        self._unfetched: set[Any] = set()
        self._collector: threading.Thread | None = None
        self._collector_tells = False  # it collects; else it only sends what jobs still have
        self._stop_collector = False
        self._tellers: list[int] = []  # threads that run callbacks of outcomes
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
            self._agent.kill()
            raise

    def _make_agent(self) -> Any:
        """What starts and watches the workers: has the methods of `AgentProcess`."""
        from shoal._workers._agent_process import AgentProcess

        return AgentProcess()

    # ---- Starting --------------------------------------------------------------------------------

    def store_startup(self) -> None:
        """Leave the initializer for the workers; the template is decided, so it is known what they
        have.
        """
        if self._startup is None:
            return
        from shoal._pickling import _pickler

        payload = _pickler.dumps_in_band(self._startup, self.definitions)
        self.client.set_startup(payload)

    def preparation(self) -> dict[str, Any] | None:
        """What a fresh interpreter is to be told besides `_context.capture()`: see there."""
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
        """The stored form of a function (None when it must travel with each task) and its name."""
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
            self._agent.ring()  # the task that nobody waits for is to be stopped
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
            self.need_collector()  # it waits for a slot, and perhaps nobody else sends it
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
        """A map over an iterator; see core.Job. `bounded`: the window is the caller's wish;
        `chunk_asked`: so is the size of chunks. A chunk that is larger than any batch can be is
        sent in pieces.
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
        """Send what the bounds allow now; what is left goes when results are fetched, or when the
        workers run out of it (if `sized`: other inputs are read by the caller's thread), or at the
        end. Reading an input that `may_wait` is left to a thread: it may wait for the very results
        that are fetched here.
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
                self.need_collector(to_tell=False)  # the caller may be busy with something else

    def cancel_queued(self) -> None:
        """Withdraw everything that has not begun."""
        if self._agent.ended:
            return
        with self._lock:
            jobs, self._jobs = self._jobs, set()
        for job in jobs:
            job.cancel()
        self.client.cancel_all(False)

    def interrupt(self) -> None:
        """Withdraw what has not begun, and stop what runs, as `cancel` does: for a Ctrl-C, which
        the workers themselves do not hear of.
        """
        self.cancel_queued()
        if not self._agent.ended:
            self.client.cancel_all(True)
            self._agent.ring()

    # ---- The collector ---------------------------------------------------------------------------

    def need_collector(self, to_tell: bool = True) -> None:
        """Somebody must hear of results without fetching them: have them collected. Or (not
        `to_tell`) only have more sent when the workers are about to run out.
        """
        with self._lock:  # also to look: it may just be leaving
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
        """Whether a collector is there, other than the calling thread: outcomes come by themselves,
        and what users have called with them is its to call.
        """
        collector = self._collector
        tells = collector is not None and self._collector_tells
        return tells and collector is not threading.current_thread()

    def collect_until_idle(self) -> bool:
        """One turn of the collector; False when it is not needed any more."""
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
            if self._stop_collector or not needed:
                self._collector = None
                self._collector_tells = False
                return False
        return True

    @contextlib.contextmanager
    def telling(self) -> Iterator[None]:
        """While a callback of an outcome runs: the outcome is open until it has returned."""
        me = threading.get_ident()
        self._tellers.append(me)
        try:
            yield
        finally:
            self._tellers.remove(me)

    @property
    def in_callback(self) -> bool:
        """Whether the calling thread is in such a callback: it would wait for itself to the end."""
        return threading.get_ident() in self._tellers

    def feed_jobs(self) -> bool:
        """Send what the bounds allow; was there anything?"""
        sent = False
        for job in list(self._jobs):
            sent = job.fill() or sent
            if job.exhausted:
                with self._lock:
                    self._jobs.discard(job)
                    self._unfetched.discard(job)
        return sent

    def stop_collector(self) -> bool:
        """Before a fork and at the end. A callback that keeps it longer than a second is left to
        itself: it may wait for us.
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
        """The pool's object is gone. What is open goes on, as its results are wanted: then the
        engine ends by itself, else at once.
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
        """The collector found nothing open: was it there for an engine without a pool?"""
        if self._let_go and not self._stop_collector and not self._is_open():
            self.terminate()

    def not_fetched(self, job: Any) -> None:
        """The iterator of a job is gone before its input was used up."""
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
        return bool(not self._agent.ended and (self.client.busy or self._jobs))

    # ---- The end ---------------------------------------------------------------------------------

    def close(self) -> None:
        self.closed = True

    def drain(self, deadline: float | None = None) -> bool:
        """Collect until every outcome is known; False when the deadline (time.monotonic) passes."""
        while True:
            for job in list(self._jobs):
                job.drain()
            self.feed_jobs()
            if not self.client.busy and not self._jobs:
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
        """After drain(): the workers leave, the memory is given back. What another thread had still
        sent when it was closed is completed first.
        """
        self.closed = True
        while not self.forked and not self._end(core.PHASE_DRAINING):
            self.drain()

    def _end(self, phase: int) -> bool:
        """False when it is to be drained, and outcomes are still to come."""
        with self._process_lock:
            if self._agent.ended or self._ending:
                return True
            if phase == core.PHASE_DRAINING and not self.client.end_when_idle():
                return False
            self._ending = True
            try:
                self.stop_collector()
                self.client.collect(0)  # what has ended in time counts
                self.client.end()
                self.client.abandon(_terminated)
                self.client.set_phase(phase)
                self._agent.wait_for_end(self.client)
            finally:
                self._ending = False  # interrupted: it can be tried again
            self._jobs.clear()
            self._unfetched.clear()
            self._stored.clear()
            self.client.release()
            _engines.discard(self)
            _left_to_results.discard(self)
            return True

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
    """Start it; from 3.12 on that is refused once the interpreter is about to exit."""
    try:
        thread.start()
    except RuntimeError as error:
        if "shutdown" not in str(error):
            raise
        from shoal.errors import PoolClosed

        raise PoolClosed("the interpreter is exiting: this pool takes no more tasks") from error


def _collect_for(reference: weakref.ref[Engine]) -> None:
    """The collector thread: holds the engine only while it works for it."""
    reported = False
    while True:
        engine = reference()
        try:
            if engine is None:
                return
            if not engine.collect_until_idle():
                engine.end_without_pool()
                return
        except BaseException:  # others count on this thread: say it once, and try again
            if not reported:
                reported = True
                sys.excepthook(*sys.exc_info())
            time.sleep(0.02)
        del engine


def _trouble(reference: weakref.ref[Engine], kind: str) -> None:
    """Called by the core while it waits: the agent is gone, or no worker can start."""
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
    """Threads of shoal's own that are stopped before a fork."""
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

        # As the standard library's pool: before other processes and queues are torn down.
        Finalize(None, _terminate_all, exitpriority=15)


def _terminate_all() -> None:
    for engine in all_of(_engines):
        engine.terminate()
