# SPDX-License-Identifier: Apache-2.0
"""The keeper of a pool or executor of the drop-in (what replaces `multiprocessing.Pool` and
`ProcessPoolExecutor`): it starts the worker processes, notices when one ends, and starts another.

Three kinds of threads use a keeper:
- The thread that makes the pool starts the first workers.
- A thread that submits a task to an executor starts the workers that this task needs.
- The keeper's own thread, in the program's process, does everything else, as a thread of the
  standard library's `Pool` does. It holds no lock while it sleeps, so that the program can fork
  safely at that time. It has no reference to the pool object, so that an unused pool can be
  collected.

Thread safety: every thread holds `Keeper._lock` while it works, and none sleeps while holding it.
Module state: `_living`, the keepers of this process, which a forked child must forget (see the end
of the file).
Design: docs/design/drop_in.md
"""

from __future__ import annotations

import os
import signal
import threading
import time
import weakref
from multiprocessing import process as stock_process

from shoal._dropin import _processes
from shoal._runtime import _locks
from shoal._runtime._native import core
from shoal._workers import _fork_safety, _plan, _seeds, _signals, _template, _watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from shoal._dropin._engine import DropInEngine

_living: weakref.WeakSet[Keeper] = weakref.WeakSet()


class _Watched:
    """A worker process of the drop-in, with the methods that `_watch.Worker` asks for."""

    def __init__(self, process: _processes.PoolProcess) -> None:
        self.process: Any = process
        self.seat = process.seat
        self.pid = process.pid or 0
        # A pidfd, which becomes readable when the worker ends. The process object's own `sentinel`,
        # the read end of a pipe, may not: a process that the worker has started may still hold the
        # other end.
        self._has_pidfd = True
        try:
            self.fd = os.pidfd_open(self.pid)
        except OSError:  # an old kernel without pidfds, or the fork server has reaped the worker
            self._has_pidfd = False
            self.fd = os.dup(self.process.sentinel)

    def send(self, number: int) -> None:
        try:
            if self._has_pidfd:
                core.signal_process(self.fd, self.pid, number)
            else:
                self.process._popen._send_signal(number)
        except ProcessLookupError:
            pass

    def wait(self) -> tuple[int, int] | None:
        os.close(self.fd)
        popen = self.process._popen
        code = popen.poll(0)
        stock_process._children.discard(self.process)  # type: ignore[attr-defined]
        if isinstance(popen, _processes.Waited):
            return None if popen.status is None else (popen.status, popen.peak)
        # The fork server reports an exit code, but no peak of memory.
        return (-code if code < 0 else code << 8), 0


class _Started(threading.Event):
    """The event that a new thread sets when it runs. `Thread.start` waits for such an event; with
    this class it does not wait.
    """

    def wait(self, timeout: float | None = None) -> bool:
        return True

    def wait_until_set(self) -> None:
        super().wait()


class _KeeperThread(threading.Thread):
    """A thread whose `start()` does not wait until the thread runs. The processors are busy with
    the workers that have just been started, so that wait could take milliseconds. Without it the
    caller can submit its first task meanwhile.
    """

    def __init__(self, keeper: Keeper, mask: Iterable[int]) -> None:
        super().__init__(target=keeper._keep, name="shoal-keeper", daemon=True)
        self._started = _Started()
        self._mask = mask

    def run(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)  # signals are blocked at its start
        super().run()

    def join(self, timeout: float | None = None) -> None:
        self._started.wait_until_set()
        super().join(timeout)


class Keeper(_watch.Watch):
    """Has the methods that an engine (`_pool/_engine.py`) calls on its agent. Native pools use an
    `AgentProcess` instead, which does the same work in a separate process.
    """

    def __init__(self) -> None:
        self.ended = False
        self.template = _template.UNDECIDED
        self.bell = self.bell_read = -1
        # Also made by Watch.__init__, but `kill` may be called before `start` has run that.
        self.workers = {}
        # Process objects of workers that live, or whose end has not been noticed yet.
        self.processes: list[Any] = []
        self._lock = _locks.RLock()
        self._thread: threading.Thread | None = None
        self._leaving = False
        self._plan: _plan.Plan | None = None
        # The signal mask that the thread that last started workers had before. While a thread
        # starts workers it blocks signals: a handler that raises between a fork and the line that
        # records the child would leave an unknown worker behind. A new worker inherits the blocked
        # signals, and sets this mask once its own handlers are in place.
        self._mask: tuple[int, ...] = ()

    # ---- Called by the engine --------------------------------------------------------------------

    def start(self, engine: DropInEngine, own_threads: int) -> None:
        """Start the first workers in the calling thread, and then the keeper's thread. An error is
        raised to the caller, who then calls `kill`.
        """
        method = engine.start_method or ""
        self.template = _template.Template(_TEMPLATES[method])
        self._class = _processes.CLASSES[method]
        self.bell_read, self.bell = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        super().__init__(engine.client.handle, self.bell_read)
        if self.template.is_copy:  # once, here, for all workers
            from shoal._workers import _worker

            _worker.import_parts()
        else:
            from shoal._runtime import _children

            _children.carry_session()
        engine.store_startup()
        self._plan = _plan.Plan(
            engine.client.handle,
            engine.worker_context(),
            engine.results_by_name,
        )
        self._daemons = engine.daemons
        _living.add(self)
        self._class.get_ready()
        with self._lock, self._interrupts_wait() as self._mask:
            for _ in range(max(0, self.supervisor.missing())):
                self.seated(self._start(self.supervisor.take_seat()))
            thread = _KeeperThread(self, self._mask)
            _fork_safety.harmless.add(thread)
            thread.start()
            self._thread = thread

    def start_workers_now(self) -> None:
        """Start the missing workers, in the calling thread. If the pool has no worker and the first
        cannot be started, the error is raised, as in the standard library. If it has some, the
        keeper's thread tries again later.
        """
        self._class.get_ready()
        with self._lock, self._interrupts_wait() as self._mask:
            if not (self.ended or self._leaving):
                if not self.workers and self.supervisor.missing() > 0 and not self.has_given_up():
                    seat = self.supervisor.take_seat()
                    if seat >= 0:
                        self.seated(self._start(seat))
                self.start_missing()
        self.ring()

    def ring(self) -> None:
        try:
            os.write(self.bell, b"!")
        except OSError:
            pass  # the pipe is full: the keeper's thread has been woken already

    def restart(self, engine: DropInEngine, own_threads: int) -> None:
        """Nothing to do. An agent process can die and is then restarted; this thread cannot die
        alone.
        """

    def wait_for_end(self, client: Any, stopping: bool) -> None:
        """Wait until all workers and the keeper's thread have ended. The caller has told the
        workers to end by setting the pool's phase.
        """
        self.ring()
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            self._keep()
        else:
            thread.join()
        while not client.bury():
            time.sleep(0.001)
        self._close()

    def kill(self, client: Any) -> None:
        """Kill and reap the workers that a failed `start` has started. The caller has set the
        pool's phase: the keeper's thread, if there is one, ends after them.
        """
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join()
        if self._thread is not None:
            self.ring()
            self._thread.join()
        for descriptor in self.workers:
            os.close(descriptor)
        self.workers.clear()
        self._close()

    def forget(self) -> None:
        """In a forked child of the program: leave the workers alone, they are the parent's."""
        self.ended = True
        for process in self.processes:
            _processes.close_inherited(process._popen)

    def _close(self) -> None:
        self.ended = True
        _living.discard(self)
        bell, self.bell = self.bell, -1
        if bell >= 0:
            os.close(bell)
            os.close(self.bell_read)

    def _interrupts_wait(self) -> _signals.interrupts_wait:
        return _signals.interrupts_wait(self._class.held_back())

    # ---- The keeper's thread ---------------------------------------------------------------------

    def _keep(self) -> None:
        while not self.ended and self._step():
            pass

    def _step(self) -> bool:
        with self._lock:
            self.start_missing()
            self.carry_out_orders()
            if not self.supervisor.wants_workers() and self.shut_down():
                self._leaving = True
                return False
            timeout = self.timeout()
        for fd, _ in self.poll.poll(timeout):
            with self._lock:
                self.see(fd)
        return True

    def start_worker(self, seat: int, rank: int) -> _watch.Worker:
        started: _Watched | None = None
        ready = False
        try:
            self._class.get_ready()
            ready = True
            with self._interrupts_wait():
                started = self._start(seat)
        except BaseException as error:
            if not ready:
                self.supervisor.free_seat(seat)
            elif started is not None:  # what a handler has raised at the end of the block
                os.close(started.fd)
                self._undo(started.process)
            if isinstance(error, OSError) or not isinstance(error, Exception):
                raise
            # most likely the fork server was killed during the request
            raise OSError(f"{type(error).__name__}: {error}") from error
        return started

    def _start(self, seat: int) -> _Watched:
        """Start a worker for the seat. If that fails, what became of the seat is noted."""
        process: Any = None
        try:
            # Here, not after the fork, it is noticed if no descriptor is left to watch the worker.
            os.close(os.dup(self.bell_read))
            process = self._make_process(seat)
            process.start()
            self.processes.append(process)
            return _Watched(process)
        except BaseException:
            if process is None or process._popen is None:
                self.supervisor.free_seat(seat)
            else:
                self._undo(process)
            raise

    def _undo(self, process: Any) -> None:
        """End a worker that cannot be watched. It may be in its seat already, and even have taken a
        task.
        """
        process.kill()
        process.join()
        self.processes = [other for other in self.processes if other is not process]
        self.supervisor.set_pid(process.seat, process.pid)
        self.supervisor.record_exit(process.seat, signal.SIGKILL, 0, False)

    def _make_process(self, seat: int) -> Any:
        assert self._plan is not None
        process = self._class(self._plan, seat, self._daemons)
        process.bell = _processes.Bell(self.bell)
        lasting = (threading.main_thread(), self._thread)
        process.follows_thread = (
            self._class is not _processes.ForkServerProcess
            and threading.current_thread() in lasting
        )
        if self.template.is_copy:
            process.seeds = _seeds.capture(inherited=True)
        if self._class is not _processes.ForkServerProcess:  # these get the fork server's mask
            process.mask = self._mask
        return process

    def bury(self, worker: _watch.Worker) -> None:
        super().bury(worker)
        # A pool that ends keeps its last list, so that programs can still read it.
        if self.supervisor.wants_workers():
            self.processes = [p for p in self.processes if p.pid != worker.pid]


_TEMPLATES = {
    "fork": _template.Kind.FORK,
    "spawn": _template.Kind.FRESH,
    "forkserver": _template.Kind.FORK_SERVER,
}


def _after_fork_in_child() -> None:
    for keeper in list(_living):
        keeper.forget()
    _living.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
