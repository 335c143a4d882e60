# SPDX-License-Identifier: Apache-2.0
"""The workers of the drop-in's pools: processes of `multiprocessing`, made by the program itself.

Each worker is a process object of the pool's context, so it starts as the standard library's
workers do: by a fork of the program, as a fresh interpreter (`set_executable`, frozen
applications), or by the fork server (`set_forkserver_preload`). The program is its parent
(`os.getppid()`, `active_children()`), and its name and number come from the counter of all
processes of the program. `_keeper.py` starts and watches the workers.

When the program dies, its workers die. A worker has the read end of a pipe whose write end only the
program holds, and the kernel kills the worker when that write end is closed (`tie_to_parent`).
Forked children of the program close their copies of the write ends (`close_inherited`).
Design: docs/design/drop_in.md
"""

from __future__ import annotations

import fcntl
import gc
import multiprocessing.context
import multiprocessing.popen_fork
import os
import select
import signal
from multiprocessing import process as stock_process
from multiprocessing import reduction

from shoal._runtime import _locks
from shoal._runtime._native import core
from shoal._workers import _plan, _seeds, _signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_contexts: Any = multiprocessing.context
_WAIT = os.WEXITED | os.WNOWAIT  # flags of waitid(): wait, but leave the status to be read
_F_SETSIG = 10  # a command of fcntl(2); the standard library has no name for it


# ---- In the program ------------------------------------------------------------------------------


class Waited:
    """Mixin for Popen classes that reads a child's exit status and peak memory.

    The keeper and the user's own threads may poll the same process. If the program has reaped the
    child itself (`os.wait()`), its status is unknown and its exit code is reported as 255.
    """

    pid: int
    returncode: int | None
    finalizer: Any = None
    status: int | None = None  # as wait4 gives it
    peak = 0  # bytes
    _is_being_read = False  # seen only by a handler that interrupts the reading
    _reading = _locks.RLock()  # reentrant: a signal handler may poll a process, too

    def __init__(self, process: Any) -> None:
        process.starting = self  # so that an interrupted `PoolProcess.start` can call `undo`
        super().__init__(process)  # type: ignore[call-arg]

    def undo(self) -> None:
        """Undo an interrupted start: kill the child if it exists, and close its pipes."""
        pid = getattr(self, "pid", None)
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitid(os.P_PID, pid, os.WEXITED)
        if self.finalizer is not None:
            self.finalizer()

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        if self.returncode is None and not flag & os.WNOHANG:
            try:
                os.waitid(os.P_PID, self.pid, _WAIT)
            except ChildProcessError:
                pass
        with Waited._reading:
            if self.returncode is None and not self._is_being_read:
                self._is_being_read = True
                try:
                    self._read_status()
                finally:
                    self._is_being_read = False
        return self.returncode

    def _read_status(self) -> None:
        try:
            pid, status, peak = core.wait4(self.pid, os.WNOHANG)
        except ChildProcessError:
            self.returncode = 255
            return
        if pid == self.pid:
            self.status, self.peak = status, peak
            self.returncode = os.waitstatus_to_exitcode(status)


class _ForkPopen(Waited, multiprocessing.popen_fork.Popen):
    pass


def _spawn(process: Any) -> Any:
    from multiprocessing import popen_spawn_posix

    from shoal._runtime import _children

    class SpawnPopen(Waited, popen_spawn_posix.Popen):
        pass

    with _children.main_module_left_out():
        return SpawnPopen(process)


def _ask_fork_server(process: Any) -> Any:
    from multiprocessing import popen_forkserver
    from multiprocessing.connection import wait

    from shoal._runtime import _children

    class ForkServerPopen(popen_forkserver.Popen):
        _is_being_read = False

        def poll(self, flag: int = os.WNOHANG) -> int | None:
            """The fork server sends the exit code once, so threads read it one at a time."""
            if not flag & os.WNOHANG:
                wait([self.sentinel])
            with Waited._reading:
                if self._is_being_read:  # by the code that a signal handler has interrupted
                    return self.returncode
                self._is_being_read = True
                try:
                    return super().poll(os.WNOHANG)
                finally:
                    self._is_being_read = False

    with _children.main_module_left_out():
        return ForkServerPopen(process)


class PoolProcess(stock_process.BaseProcess):
    """A worker. The object exists in the program and in the worker process."""

    def __init__(self, plan: _plan.Plan, seat: int, daemon: bool) -> None:
        super().__init__(daemon=daemon)
        if daemon:
            self.name = self.name.replace("Process", "PoolWorker")
        self.plan = plan
        self.seat = seat
        self.bell: Any = None
        self.seeds = _seeds.Seeds()
        self.mask: tuple[int, ...] | None = None  # the signal mask to restore: see Keeper._mask
        self.starting: Any = None  # the Popen object while `start` runs
        # Whether the thread that starts the worker lives as long as the program.
        self.follows_thread = False
        self.unprepared: RuntimeError | None = None  # why this worker cannot serve

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "starting": None}

    @staticmethod
    def get_ready() -> None:
        """Start the helper process that this start method needs, if it is not running yet. The
        helper inherits the calling thread's signal mask, so no signal must be blocked here.
        """

    @staticmethod
    def held_back() -> Iterable[int]:
        """The signals to block while a worker is started."""
        return _signals.held_back()

    def start(self) -> None:
        """As in the standard library, except that a daemon process may start shoal's pools."""
        me: Any = self
        stock_process._cleanup()  # type: ignore[attr-defined]
        try:
            me._popen = me._Popen(self)
        except BaseException:  # raised by a signal handler, most likely
            if self.starting is not None:
                self.starting.undo()
            raise
        self.starting = None
        me._sentinel = me._popen.sentinel
        del me._target, me._args, me._kwargs
        stock_process._children.add(self)  # type: ignore[attr-defined]

    def _bootstrap(self, parent_sentinel: int | None = None) -> int:
        """In the worker: prepare the process before the standard library's `_bootstrap`, and import
        the main module.
        """
        core.incarnation()  # joins the session, or raises
        tie_to_parent(self, parent_sentinel)
        _signals.leave_interrupts_to_the_program()
        if self.mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)
        if self.plan.context:
            from shoal._workers import _context

            _context.make_main(self.plan.context)
            try:
                _context.prepare(self.plan.context, self.name)
            except RuntimeError as error:
                self.unprepared = error
        return int(super()._bootstrap(parent_sentinel))  # type: ignore[misc]

    def run(self) -> None:
        from shoal._workers import _worker

        if not self.plan.context:
            gc.freeze()  # garbage collection here must not write to pages shared with the program
            _seeds.apply(self.seeds, self._identity)
        _worker.serve(self.plan, self.seat, self.bell.descriptor, self.unprepared)


class ForkProcess(PoolProcess, _contexts.ForkProcess):  # type: ignore[misc]
    _Popen = staticmethod(_ForkPopen)


class SpawnProcess(PoolProcess, _contexts.SpawnProcess):  # type: ignore[misc]
    _Popen = staticmethod(_spawn)

    @staticmethod
    def get_ready() -> None:
        from multiprocessing import resource_tracker

        resource_tracker.ensure_running()


class ForkServerProcess(PoolProcess, _contexts.ForkServerProcess):  # type: ignore[misc]
    _Popen = staticmethod(_ask_fork_server)

    @staticmethod
    def get_ready() -> None:
        from multiprocessing import forkserver

        forkserver.ensure_running()  # may preload the main module (`set_forkserver_preload`)

    @staticmethod
    def held_back() -> Iterable[int]:
        """Only Ctrl-C. If the fork server is killed just now, the request starts another one, which
        must not have signals blocked, SIGCHLD least of all.
        """
        return {signal.SIGINT}


CLASSES = {"fork": ForkProcess, "spawn": SpawnProcess, "forkserver": ForkServerProcess}


class Bell:
    """The write end of a keeper's bell, in a form that can be sent to a worker."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __reduce__(self) -> tuple[Any, ...]:
        return _receive_bell, (reduction.DupFd(self.descriptor),)


def _receive_bell(duplicate: Any) -> Bell:
    descriptor = duplicate.detach()
    os.set_inheritable(descriptor, False)
    return Bell(descriptor)


def close_inherited(popen: Any) -> None:
    """In a forked child of the program: close the program's ends of a worker's pipes. The worker
    must notice the program's end even if this child still lives.
    """
    finalizer = popen.finalizer
    if finalizer is not None and finalizer.still_active():
        for descriptor in finalizer._args:
            os.close(descriptor)


_locks.renew_in_children(Waited, "_reading", _locks.RLock)


# ---- In a worker ---------------------------------------------------------------------------------


def tie_to_parent(process: Any, sentinel: int | None) -> None:
    """Have the kernel kill this worker as soon as the program has ended. `sentinel`: the read end
    of a pipe whose write end only the program holds, and to which nothing more is written.
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
    if poll.poll(0):  # the program had already ended
        os.kill(os.getpid(), signal.SIGKILL)
