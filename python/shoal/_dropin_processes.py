# SPDX-License-Identifier: Apache-2.0
"""The workers of the drop-in's pools: processes of `multiprocessing`, made by the program itself.

Each is a process object of the pool's context, so it starts as the standard library's workers do:
by fork from the program as it then is, by a fresh interpreter (`set_executable`, frozen
applications), or by the fork server (`set_forkserver_preload`). The program is its parent
(`os.getppid()`, `active_children()`), and its name and number count on over all processes of the
program.

The first workers are started by the thread that makes the pool. Then a thread of the program, the
*keeper*, sees how workers end and starts their successors, as the standard library's `Pool` does.

Who dies with whom: a worker asks the kernel to be killed when the program's end of the pipe closes
that tells it of its parent's end (`tie_to_parent`). In forked children of the program these ends
are closed, so that they are the program's alone.

Thread safety: `Keeper._lock` is held for all but sleeping. Module state: `_living`, the keepers
whose workers run. Design: docs/design/drop_in.md
"""

from __future__ import annotations

import fcntl
import gc
import multiprocessing.context
import multiprocessing.popen_fork
import os
import select
import signal
import threading
import time
import weakref
from multiprocessing import process as stock_process
from multiprocessing import reduction
from typing import TYPE_CHECKING, Any

from shoal import _locks, _plan, _seeds, _signals, _snapshot, _watch
from shoal._native import core

if TYPE_CHECKING:
    from shoal._dropin_engine import DropInEngine

_contexts: Any = multiprocessing.context
_WAIT = os.WEXITED | os.WNOWAIT  # of waitid(): leave the status to be read
_F_SETSIG = 10  # of fcntl(2); the standard library has no name for it
_living: weakref.WeakSet[Keeper] = weakref.WeakSet()


# ---- In the program: one worker ------------------------------------------------------------------


class _Waited:
    """How a child of ours ended, with its use of memory, for whoever asks first.

    The keeper and the user's own threads may ask for the same process. Somebody else may have
    waited for it (`os.wait()`): then its status is unknown, and 255 stands for it.
    """

    pid: int
    returncode: int | None
    finalizer: Any
    status: int | None = None  # as wait4 gives it
    peak = 0  # bytes
    _reading = _locks.Lock()

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        if self.returncode is None and not flag & os.WNOHANG:
            try:
                os.waitid(os.P_PID, self.pid, _WAIT)
            except ChildProcessError:
                pass
        with _Waited._reading:
            if self.returncode is None:
                self._read_status()
        return self.returncode

    def _read_status(self) -> None:
        try:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
        except ChildProcessError:
            self.returncode = 255
            return
        if pid == self.pid:
            self.status, self.peak = status, usage.ru_maxrss * 1024
            self.returncode = os.waitstatus_to_exitcode(status)


class _ForkPopen(_Waited, multiprocessing.popen_fork.Popen):  # type: ignore[misc]
    pass


def _spawn(process: Any) -> Any:
    from multiprocessing import popen_spawn_posix, resource_tracker

    from shoal import _install

    class SpawnPopen(_Waited, popen_spawn_posix.Popen):  # type: ignore[misc]
        pass

    resource_tracker.ensure_running()  # with this thread's mask
    # A Ctrl-C that comes before the worker can tell what to do with it waits for that.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    process.mask = tuple(map(int, mask))
    try:
        with _install.main_module_left_out():
            return SpawnPopen(process)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _ask_fork_server(process: Any) -> Any:
    from multiprocessing import forkserver, popen_forkserver

    from shoal import _install

    forkserver.ensure_running()  # it may import the main module, if it is told of it
    with _install.main_module_left_out():
        return popen_forkserver.Popen(process)


class PoolProcess(stock_process.BaseProcess):
    """A worker: the object in the program, and in the worker itself."""

    def __init__(self, plan: _plan.Plan, seat: int, daemon: bool) -> None:
        super().__init__(daemon=daemon)
        if daemon:
            self.name = self.name.replace("Process", "PoolWorker")
        self.plan = plan
        self.seat = seat
        self.bell: Any = None
        self.seeds = _seeds.Seeds()
        self.mask: tuple[int, ...] | None = None  # of signals, to be restored
        self.follows_thread = False  # the thread that starts it lives as long as the program
        self.unprepared: RuntimeError | None = None  # why this worker cannot serve

    def start(self) -> None:
        """As the standard library's, but that a daemon may start pools of shoal's."""
        me: Any = self
        stock_process._cleanup()  # type: ignore[attr-defined]
        me._popen = me._Popen(self)
        me._sentinel = me._popen.sentinel
        del me._target, me._args, me._kwargs
        stock_process._children.add(self)  # type: ignore[attr-defined]

    def _bootstrap(self, parent_sentinel: int | None = None) -> int:
        """In the worker: what comes before all that a process of `multiprocessing` does, the main
        module's import among it.
        """
        from shoal import _context

        core.set_bond(self.plan.client)
        tie_to_parent(self, parent_sentinel)
        _signals.leave_interrupts_to_the_program()
        if self.mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)
        if self.plan.context:
            _context.make_main(self.plan.context)
            try:
                _context.prepare(self.plan.context, self.name)
            except RuntimeError as error:
                self.unprepared = error
        return int(super()._bootstrap(parent_sentinel))  # type: ignore[misc]

    def run(self) -> None:
        from shoal import _worker

        if not self.plan.context:
            gc.freeze()  # collections here leave alone what is shared with the program
            _seeds.apply(self.seeds, self._identity)  # type: ignore[attr-defined]
        _worker.serve(self.plan, self.seat, self.bell.descriptor, self.unprepared)


class ForkProcess(PoolProcess, _contexts.ForkProcess):  # type: ignore[misc]
    _Popen = staticmethod(_ForkPopen)


class SpawnProcess(PoolProcess, _contexts.SpawnProcess):  # type: ignore[misc]
    _Popen = staticmethod(_spawn)


class ForkServerProcess(PoolProcess, _contexts.ForkServerProcess):  # type: ignore[misc]
    _Popen = staticmethod(_ask_fork_server)


_CLASSES = {"fork": ForkProcess, "spawn": SpawnProcess, "forkserver": ForkServerProcess}


class Bell:
    """The write end of a keeper's bell, on its way to a worker."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __reduce__(self) -> tuple[Any, ...]:
        return _receive_bell, (reduction.DupFd(self.descriptor),)


def _receive_bell(duplicate: Any) -> Bell:
    descriptor = duplicate.detach()
    os.set_inheritable(descriptor, False)
    return Bell(descriptor)


class _Watched:
    """A worker as the keeper sees it: see _watch.Worker."""

    def __init__(self, process: PoolProcess) -> None:
        self.process: Any = process
        self.seat = process.seat
        self.pid: int = self.process.pid
        # A grandchild may hold the sentinel's other end for longer than the worker lives.
        try:
            self.fd = os.pidfd_open(self.pid)
        except OSError:  # an old kernel, or the fork server has waited for it
            self.fd = os.dup(self.process.sentinel)

    def send(self, number: int) -> None:
        self.process._popen._send_signal(number)

    def wait(self) -> tuple[int, int] | None:
        os.close(self.fd)
        popen = self.process._popen
        code = popen.poll(0)
        stock_process._children.discard(self.process)  # type: ignore[attr-defined]
        if isinstance(popen, _Waited):
            return None if popen.status is None else (popen.status, popen.peak)
        return (-code if code < 0 else code << 8), 0  # the fork server tells no more


# ---- In the program: all workers of a pool -------------------------------------------------------


class Keeper(_watch.Watch):
    """Keeps a pool's workers. The engine sees it as it sees an `AgentProcess`."""

    def __init__(self) -> None:
        self.ended = False
        self.template = ""
        self.is_snapshot = False
        self.bell = -1
        self.processes: list[Any] = []  # those that live, and those whose end nobody has seen yet
        self._lock = _locks.RLock()
        self._thread: threading.Thread | None = None
        self._leaving = False
        self._plan: _plan.Plan | None = None

    # ---- What the engine asks for ----------------------------------------------------------------

    def start(self, engine: DropInEngine, own_threads: int) -> None:
        """Start the first workers, in this thread, then the keeper's. What fails is the caller's."""
        method = engine.start_method or ""
        self.is_snapshot = method == "fork"
        self.template = _TEMPLATES[method]
        self._class = _CLASSES[method]
        read, self.bell = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        super().__init__(engine.client.handle, read)
        if self.is_snapshot:  # once, here, for all workers
            from shoal import _applied, _context, _definitions, _hooks, _pickling, _worker  # noqa: F401
        else:
            from shoal import _session

            _session.carry_session()
        engine.store_startup()
        self._plan = _plan.Plan(
            engine.client.handle,
            core.incarnation(),
            engine.worker_context(),
            engine.results_by_name,
        )
        self._daemons = engine.daemons
        _living.add(self)
        with self._lock:
            for _ in range(max(0, self.supervisor.missing())):
                self._start_one(self.supervisor.take_seat())
        self._thread = threading.Thread(target=self._keep, name="shoal-keeper", daemon=True)
        _snapshot.harmless.add(self._thread)
        self._thread.start()

    def start_workers_now(self) -> None:
        """In the calling thread: there are to be more."""
        with self._lock:
            if not (self.ended or self._leaving):
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
            close_inherited(process._popen)

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
            return self._start(seat)
        except EOFError as error:  # the fork server was killed in the midst of it
            raise OSError(str(error)) from error

    def _start_one(self, seat: int) -> None:
        try:
            self.seated(self._start(seat))
        except BaseException:
            self.supervisor.free_seat(seat)
            raise

    def _start(self, seat: int) -> _Watched:
        assert self._plan is not None
        process = self._class(self._plan, seat, self._daemons)
        process.bell = Bell(self.bell)
        lasting = (threading.main_thread(), self._thread)
        process.follows_thread = (
            self._class is not ForkServerProcess and threading.current_thread() in lasting
        )
        if self.is_snapshot:
            process.seeds = _seeds.capture(inherited=True)
        process.start()
        self.processes.append(process)
        return _Watched(process)

    def bury(self, worker: _watch.Worker) -> None:
        super().bury(worker)
        if self.supervisor.wants_workers():  # else it stays the last that there were
            self.processes = [p for p in self.processes if p.pid != worker.pid]


_TEMPLATES = {
    "fork": "a fork of this process",
    "spawn": "spawn: every worker is a fresh interpreter",
    "forkserver": "a fork of the standard library's fork server",
}


def close_inherited(popen: Any) -> None:
    """In a child of the program: close the ends of a worker's pipes that the program holds. The
    worker is to see that the program has ended, whoever else lives on.
    """
    finalizer = popen.finalizer
    if finalizer is not None and finalizer.still_active():
        for descriptor in finalizer._args:
            os.close(descriptor)


def _after_fork_in_child() -> None:
    _Waited._reading = _locks.Lock()
    for keeper in list(_living):
        keeper.forget()
    _living.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)


# ---- In a worker ---------------------------------------------------------------------------------


def tie_to_parent(process: Any, sentinel: int | None) -> None:
    """Have the kernel kill this worker as soon as the program has ended. `sentinel`: the read end of
    a pipe whose other end only the program has, and nobody writes to any more.
    """
    if process.follows_thread:
        core.die_with_parent(process._parent_pid)
    if sentinel is None:
        return
    fcntl.fcntl(sentinel, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(sentinel, _F_SETSIG, int(signal.SIGKILL))
    flags = fcntl.fcntl(sentinel, fcntl.F_GETFL)
    fcntl.fcntl(sentinel, fcntl.F_SETFL, flags | os.O_ASYNC)
    poll = select.poll()
    poll.register(sentinel, 0)
    if poll.poll(0):  # it had ended before
        os.kill(os.getpid(), signal.SIGKILL)
