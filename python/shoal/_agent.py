# SPDX-License-Identifier: Apache-2.0
"""The agent: the process that starts a pool's workers, watches them, and stops what must stop.

It is a template of the worker: either a *snapshot* (a fork of the client, taken where that is safe)
or *clean*: a fresh interpreter that imports what the client has imported, or, for the drop-in's
forkserver, a child of the standard library's fork server. It has one thread, runs no user code, and
sleeps in poll() on: its bell, the client's pidfd, its workers' pidfds, and the nearest time limit.

Who dies with whom: the agent ends when its client does (pidfd), the workers when the agent does
(PDEATHSIG, set by each worker right after its fork; safe because the agent has one thread, which
lives as long as it does).
Design: docs/design/pool.md
"""

from __future__ import annotations

import os
import select
import signal
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from shoal import _launch
from shoal._native import core

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

STOP_SIGNAL = signal.SIGRTMIN + 9  # interrupts a worker's task; private to shoal
TERMINATE_GRACE = 1.0  # seconds between SIGTERM and SIGKILL when a pool is terminated
# Several workers may be killed at once, and are buried one by one; later, others were struck.
STRIKE_SECONDS = 1.0


class Settings(NamedTuple):
    """What an agent needs to know; plain values, so that it can be sent to a fresh interpreter."""

    pool: int  # handle of the pool's state
    client: int  # the client's incarnation
    client_pid: int
    bell_read: int
    bell_write: int
    method: str  # "fork": workers are forked from this process; "exec": each is a fresh interpreter
    name: str  # prefix of the workers' process names
    memory_fd: int  # the session's memory, for exec'd processes
    context: dict[str, Any]  # see _context.py
    results_by_name: bool  # see Engine
    daemons: bool  # see Engine
    start_method: str | None  # of multiprocessing, which workers take over; None: leave it alone


def worker_name(settings: Settings, rank: int) -> str:
    what = "PoolWorker" if settings.daemons else "Process"
    return f"{settings.name}{what}-{rank + 1}"


class _Worker(NamedTuple):
    seat: int
    pid: int
    pidfd: int


class Agent:
    """The loop. `start_worker(seat, rank)` returns the new worker's pid; never returns there."""

    def __init__(self, settings: Settings, start_worker: Callable[[int, int], int]) -> None:
        self.settings = settings
        self.start_worker = start_worker
        self.supervisor = core.Supervisor(settings.pool)
        self.workers: dict[int, _Worker] = {}  # by pidfd
        self.poll = select.poll()
        self.client_pidfd = os.pidfd_open(settings.client_pid)
        self.ends_with_client = {self.client_pidfd}  # readable when the client has ended
        self.kills = core.oom_kills()
        self.strikes = 0  # of the out-of-memory killer, not yet accounted to a worker
        self.struck_at = 0.0
        self.terminated_at = 0.0
        self.retry_at = 0.0

    def run(self, client_sentinel: int | None = None) -> None:
        """`client_sentinel`: readable when the client has ended; of an agent that is no child."""
        self.poll.register(self.settings.bell_read, select.POLLIN)
        self.poll.register(self.client_pidfd, select.POLLIN)
        if client_sentinel is not None:
            self.ends_with_client.add(client_sentinel)
            self.poll.register(client_sentinel, select.POLLIN)
        elif os.getppid() != self.settings.client_pid:
            return  # the client died before we could watch it
        while self.step():
            pass

    def step(self) -> bool:
        self.start_missing()
        self.carry_out_orders()
        if not self.supervisor.wants_workers() and self.shut_down():
            return False
        for fd, _ in self.poll.poll(self.timeout()):
            if fd in self.ends_with_client:
                self.kill_all()
                return False
            if fd == self.settings.bell_read:
                os.read(fd, 4096)
            elif fd in self.workers:
                self.bury(self.workers.pop(fd))
        return True

    def timeout(self) -> float:
        """Milliseconds to sleep."""
        seconds = self.supervisor.seconds_to_next_order()
        if self.terminated_at or self.retry_at:
            seconds = min(seconds if seconds is not None else 0.02, 0.02)
        return 60_000.0 if seconds is None else seconds * 1000 + 1

    def start_missing(self) -> None:
        self.retry_at = 0.0
        for _ in range(max(0, self.supervisor.missing())):
            if self.supervisor.failed_starts() >= core.START_PATIENCE:
                return
            seat = self.supervisor.take_seat()
            if seat < 0:  # the client has not resolved the last deaths yet
                self.retry_at = time.monotonic()
                return
            try:
                pid = self.start_worker(seat, self.supervisor.rank(seat))
            except OSError:  # no more processes or memory just now
                self.supervisor.free_seat(seat)
                self.retry_at = time.monotonic()
                return
            self.supervisor.set_pid(seat, pid)
            pidfd = os.pidfd_open(pid)
            self.workers[pidfd] = _Worker(seat, pid, pidfd)
            self.poll.register(pidfd, select.POLLIN)

    def bury(self, worker: _Worker) -> None:
        self.poll.unregister(worker.pidfd)
        os.close(worker.pidfd)
        try:
            _, status, usage = os.wait4(worker.pid, 0)
        except ChildProcessError:
            self.supervisor.record_exit(worker.seat, 0, 0, False)
            return
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        by_limit = killed and self.memory_limit_struck()
        self.supervisor.record_exit(worker.seat, status, usage.ru_maxrss * 1024, by_limit)

    def memory_limit_struck(self) -> bool:
        """Whether the out-of-memory killer has just killed one more process than it is known to
        have.
        """
        now, kills = time.monotonic(), core.oom_kills()
        if kills > self.kills:
            fresh = self.strikes if now - self.struck_at < STRIKE_SECONDS else 0
            self.strikes, self.struck_at = fresh + kills - self.kills, now
            self.kills = kills
        if self.strikes == 0 or now - self.struck_at >= STRIKE_SECONDS:
            return False
        self.strikes -= 1
        return True

    def carry_out_orders(self) -> None:
        for seat, pid, kill in self.supervisor.orders():
            for worker in self.workers.values():
                if worker.seat == seat and worker.pid == pid:
                    _send(worker.pidfd, signal.SIGKILL if kill else STOP_SIGNAL)

    def shut_down(self) -> bool:
        """The pool ends: idle workers leave by themselves, the others are told to when it is
        terminated.
        """
        if not self.workers:
            return True
        if self.supervisor.phase() == 2:
            now = time.monotonic()
            if not self.terminated_at:
                self.terminated_at = now
                for worker in self.workers.values():
                    _send(worker.pidfd, signal.SIGTERM)
            elif now - self.terminated_at > TERMINATE_GRACE:
                for worker in self.workers.values():
                    _send(worker.pidfd, signal.SIGKILL)
        return False

    def kill_all(self) -> None:
        for worker in self.workers.values():
            _send(worker.pidfd, signal.SIGKILL)


def _send(pidfd: int, number: int) -> None:
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        pass


def _be_quiet() -> None:
    """Signals of the terminal are the client's to handle; ends as told by the bell or by pidfds.
    What the client ignores (SIGHUP, under nohup) stays ignored.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number in (
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGALRM,
    ):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)


def run_snapshot(settings: Settings) -> NoReturn:
    """In the child of the client's fork."""

    def live() -> int:
        import gc

        import_for_workers()
        gc.freeze()  # collections in the workers leave what they share alone
        _be_quiet()
        _launch.ready()
        core.set_bond(settings.client)
        _run(settings, _fork_worker)
        return 0

    _launch.run_to_the_end(live)


def _run(
    settings: Settings,
    starter: Callable[[Settings, int, int], int],
    client_sentinel: int | None = None,
) -> None:
    try:
        agent = Agent(settings, lambda seat, rank: starter(settings, seat, rank))
    except ProcessLookupError:
        return  # the client has ended
    agent.run(client_sentinel)


def import_for_workers() -> None:
    """Once here, so that not every worker does it after its fork."""

    from shoal import _applied, _definitions, _hooks, _pickling, _worker  # noqa: F401


def _fork_worker(settings: Settings, seat: int, rank: int) -> int:
    agent_pid = os.getpid()
    pid = os.fork()
    if pid == 0:
        from shoal import _worker

        _worker.run_forked(settings, seat, rank, agent_pid)
    return pid


def run_clean(settings: Settings) -> NoReturn:
    """In a fresh interpreter."""
    from shoal import _context

    def live() -> int:
        _be_quiet()
        _launch.ready()
        core.join_session(settings.memory_fd, settings.client)
        os.set_inheritable(settings.bell_read, False)
        if settings.method == "exec":
            starter = _exec_worker
            os.set_inheritable(settings.bell_write, True)
        else:
            starter = _fork_worker
            os.set_inheritable(settings.bell_write, False)
            _context.make_main(settings.context)
            _context.apply(settings.context)
            _context.import_modules(settings.context)
            _freeze()
        _run(settings, starter)
        return 0

    _launch.run_to_the_end(live)


def _freeze() -> None:
    import gc

    import_for_workers()
    gc.collect()
    gc.freeze()


def run_in_fork_server(settings: Settings, client_sentinel: int) -> NoReturn:
    """In a child of the standard library's fork server, which has joined the session already.
    `client_sentinel` is readable when the client has ended, or has given up this agent.
    """
    from shoal import _context

    def live() -> int:
        _be_quiet()
        _launch.ready()
        core.set_bond(settings.client)
        _context.apply(settings.context)
        _freeze()
        _run(settings, _fork_worker, client_sentinel)
        return 0

    _launch.run_to_the_end(live)


def _exec_worker(settings: Settings, seat: int, rank: int) -> int:
    memory_fd = core.session_fd()
    return _launch.spawn(
        "shoal._worker",
        (settings._replace(memory_fd=memory_fd), seat, rank, os.getpid()),
        (memory_fd, settings.bell_write),
        settings.context,
    )


def main(settings: tuple[Any, ...]) -> NoReturn:
    """Entry of the fresh interpreter (shoal._launch)."""
    run_clean(Settings(*settings))
