# SPDX-License-Identifier: Apache-2.0
"""The keeper of a drop-in's pool: starts its workers, sees how they end, starts their successors.

The first workers are started by the thread that makes the pool; those that an executor needs later,
by the thread that sends the task. All else is done by a thread of the program, as in the standard
library's `Pool`. It holds no lock while it sleeps and refers to no pool.

Thread safety: `Keeper._lock` is held for all but sleeping. Module state: `_living`, the keepers
whose workers run. Design: docs/design/drop_in.md
"""

from __future__ import annotations

import os
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
    from typing import Any

    from shoal._dropin._engine import DropInEngine

_living: weakref.WeakSet[Keeper] = weakref.WeakSet()


class _Watched:
    """A worker as the keeper sees it: see _watch.Worker."""

    def __init__(self, process: _processes.PoolProcess) -> None:
        self.process: Any = process
        self.seat = process.seat
        self.pid = process.pid or 0
        # Rather a pidfd: a grandchild may hold the sentinel's other end when the worker has ended.
        self._has_pidfd = True
        try:
            self.fd = os.pidfd_open(self.pid)
        except OSError:  # an old kernel, or the fork server has waited for it
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
        return (-code if code < 0 else code << 8), 0  # the fork server tells no more


class _Started(threading.Event):
    """Set once a thread runs. `Thread.start` waits for that; here it goes on at once."""

    def wait(self, timeout: float | None = None) -> bool:
        return True

    def wait_until_set(self) -> None:
        super().wait()


class _KeeperThread(threading.Thread):
    """Does not keep who starts it waiting. Beside workers that have just been started it may take
    milliseconds until this thread runs; the program sends its first task meanwhile.
    """

    def __init__(self, keeper: Keeper) -> None:
        super().__init__(target=keeper._keep, name="shoal-keeper", daemon=True)
        self._started = _Started()

    def join(self, timeout: float | None = None) -> None:
        self._started.wait_until_set()
        super().join(timeout)


class Keeper(_watch.Watch):
    """Keeps a pool's workers. The engine sees it as it sees an `AgentProcess`."""

    def __init__(self) -> None:
        self.ended = False
        self.template = _template.UNDECIDED
        self.bell = -1
        self.workers = {}  # here too: `kill` may come before `start` has made a Watch of this
        self.processes: list[Any] = []  # those that live, and those whose end nobody has seen yet
        self._lock = _locks.RLock()
        self._thread: threading.Thread | None = None
        self._leaving = False
        self._plan: _plan.Plan | None = None
        # The signals that the program's thread blocked when it last started workers. A worker
        # blocks SIGINT as well until it has set its handlers, and restores this mask then. The
        # program blocks SIGINT while it starts workers: a KeyboardInterrupt between a fork and the
        # line that notes the child would leave a worker that nobody knows of.
        self._mask: tuple[int, ...] = ()

    # ---- What the engine asks for ----------------------------------------------------------------

    def start(self, engine: DropInEngine, own_threads: int) -> None:
        """Start the first workers, in this thread, then the keeper's. Failures are the caller's."""
        method = engine.start_method or ""
        self.template = _template.Template(_TEMPLATES[method])
        self._class = _processes.CLASSES[method]
        read, self.bell = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        super().__init__(engine.client.handle, read)
        if self.template.is_copy:  # once, here, for all workers
            from shoal._workers import _worker

            _worker.import_parts()
        else:
            from shoal._runtime import _children

            _children.carry_session()
        engine.store_startup()
        self._plan = _plan.Plan(
            engine.client.handle,
            core.incarnation(),
            engine.worker_context(),
            engine.results_by_name,
        )
        self._daemons = engine.daemons
        _living.add(self)
        self._class.get_ready()
        with self._lock, _signals.interrupts_wait() as self._mask:
            for _ in range(max(0, self.supervisor.missing())):
                self._start_one(self.supervisor.take_seat())
        self._thread = _KeeperThread(self)
        _fork_safety.harmless.add(self._thread)
        self._thread.start()

    def start_workers_now(self) -> None:
        """The pool is to have more workers: start them in the calling thread. If it has none and
        the first cannot be started, the caller gets the error, as in the standard library.
        """
        self._class.get_ready()
        with self._lock, _signals.interrupts_wait() as self._mask:
            if not (self.ended or self._leaving):
                if not self.workers and self.supervisor.missing() > 0 and not self.has_given_up():
                    seat = self.supervisor.take_seat()
                    if seat >= 0:
                        self._start_one(seat)
                self.start_missing()
        self.ring()

    def ring(self) -> None:
        try:
            os.write(self.bell, b"!")
        except OSError:
            pass  # full: it has been rung

    def restart(self, engine: DropInEngine, own_threads: int) -> None:
        """A thread of this process does not die alone."""

    def wait_for_end(self, client: Any) -> None:
        """The pool's phase is set: the keeper leaves when its workers have left."""
        self.ring()
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            self._keep()
        else:
            thread.join()
        while not client.bury():
            time.sleep(0.001)
        self._close()

    def kill(self) -> None:
        """Give up while starting."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join()
        for descriptor in self.workers:
            os.close(descriptor)
        self.workers.clear()
        self._close()

    def forget(self) -> None:
        """In a child of the program: the workers are the program's."""
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
        try:
            self._class.get_ready()
            with _signals.interrupts_wait():
                return self._start(seat)
        except OSError:
            raise
        except Exception as error:  # the fork server was killed in the midst of it, most likely
            raise OSError(f"{type(error).__name__}: {error}") from error

    def _start_one(self, seat: int) -> None:
        try:
            self.seated(self._start(seat))
        except BaseException:
            self.supervisor.free_seat(seat)
            raise

    def _start(self, seat: int) -> _Watched:
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
        if self._class is not _processes.ForkServerProcess:  # whose children have its mask
            process.mask = self._mask
        process.start()
        self.processes.append(process)
        return _Watched(process)

    def bury(self, worker: _watch.Worker) -> None:
        super().bury(worker)
        if self.supervisor.wants_workers():  # else it stays the last that there were
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
