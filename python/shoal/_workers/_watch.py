# SPDX-License-Identifier: Apache-2.0
"""The base class of the two watchers of a pool's workers. A watcher starts the workers, gives them
seats, records how they end, and stops tasks and workers.

The watchers are the agent, a process between the program and its workers (`_agent.py`), and the
keeper, a thread of the program whose workers are the program's own children
(`_dropin/_keeper.py`). Both sleep in poll() on a bell and on a descriptor per worker that becomes
readable at the worker's end, until the nearest time limit.
Design: docs/design/pool.md
"""

from __future__ import annotations

import os
import select
import signal
import time

from shoal._runtime._native import core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Protocol
else:
    Protocol = object  # at run time `typing` need not be imported

STOP_SIGNAL = signal.SIGRTMIN + 9  # interrupts a worker's task; private to shoal
TERMINATE_GRACE = 1.0  # seconds between SIGTERM and SIGKILL when a pool is terminated
# The out-of-memory killer may kill several workers together, which are then buried one by one. A
# kill that no worker's death has matched within this time was of another process.
STRIKE_SECONDS = 1.0


class Worker(Protocol):
    """A worker that was started."""

    seat: int
    pid: int
    fd: int  # readable when the worker has ended

    def send(self, number: int) -> None:
        """Send the worker a signal, unless it has ended."""

    def wait(self) -> tuple[int, int] | None:
        """(wait status, peak memory in bytes) of a worker that has ended; None if unknown. Closes
        `fd`.
        """


class Watch:
    """Watches the workers of one pool. A subclass defines `start_worker`."""

    # weight of consecutive failed starts after which no worker is started any more
    start_patience: int = core.START_PATIENCE

    def __init__(self, pool: int, bell_read: int) -> None:
        self.supervisor = core.Supervisor(pool)
        self.bell_read = bell_read
        self.workers: dict[int, Worker] = {}  # by descriptor
        self.poll = select.poll()
        self.poll.register(bell_read, select.POLLIN)
        self.kills = core.oom_kills()
        self.strikes = 0  # kills by the out-of-memory killer, not yet attributed to a worker
        self.struck_at = 0.0
        self.terminated_at = 0.0
        self.retry_at = 0.0

    def start_worker(self, seat: int, rank: int) -> Worker:
        """Start a worker for the seat. Raises OSError if that is not possible now; what became of
        the seat is then noted.
        """
        raise NotImplementedError

    def timeout(self) -> float:
        """Milliseconds to sleep."""
        seconds = self.supervisor.seconds_to_next_order()
        if self.terminated_at or self.retry_at:
            seconds = min(seconds if seconds is not None else 0.02, 0.02)
        return 60_000.0 if seconds is None else seconds * 1000 + 1

    def start_missing(self) -> None:
        """Start workers until there are as many as wanted. A worker that cannot be started now is
        tried again a little later.
        """
        self.retry_at = 0.0
        for _ in range(max(0, self.supervisor.missing())):
            if self.has_given_up():
                return
            seat = self.supervisor.take_seat()
            if seat < 0:  # no free seat: the client has not handled the last deaths yet
                self.retry_at = time.monotonic()
                return
            try:
                worker = self.start_worker(seat, self.supervisor.rank(seat))
            except OSError:  # out of processes, memory or descriptors for now
                self.retry_at = time.monotonic()
                return
            self.seated(worker)

    def has_given_up(self) -> bool:
        """Whether no more are started: too many in a row died before their first task."""
        return bool(self.supervisor.failed_starts() >= self.start_patience)

    def seated(self, worker: Worker) -> None:
        self.supervisor.set_pid(worker.seat, worker.pid)
        self.workers[worker.fd] = worker
        self.poll.register(worker.fd, select.POLLIN)

    def see(self, fd: int) -> None:
        """Something happened at the descriptor: the bell was rung or a worker has ended."""
        if fd == self.bell_read:
            os.read(fd, 4096)
        elif fd in self.workers:
            self.bury(self.workers.pop(fd))

    def bury(self, worker: Worker) -> None:
        self.poll.unregister(worker.fd)
        known = worker.wait()
        if known is None:
            self.supervisor.record_exit(worker.seat, 0, 0, False)
            return
        status, peak = known
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        self.supervisor.record_exit(
            worker.seat, status, peak, killed and self.memory_limit_struck()
        )

    def memory_limit_struck(self) -> bool:
        """Whether a recent kill by the out-of-memory killer is not attributed to a worker yet; if
        so, attribute it.
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
                    worker.send(signal.SIGKILL if kill else STOP_SIGNAL)

    def shut_down(self) -> bool:
        """The pool ends. Idle workers leave by themselves; if the pool is terminated, all workers
        get SIGTERM, and SIGKILL after a grace period. True when no worker is left.
        """
        if not self.workers:
            return True
        if self.supervisor.phase() == core.PHASE_STOPPING:
            now = time.monotonic()
            if not self.terminated_at:
                self.terminated_at = now
                send_all(self.workers, signal.SIGTERM)
            elif now - self.terminated_at > TERMINATE_GRACE:
                send_all(self.workers, signal.SIGKILL)
        return False


def send_all(workers: Mapping[int, Worker], number: int) -> None:
    for worker in workers.values():
        worker.send(number)
