# SPDX-License-Identifier: Apache-2.0
"""The agent: the process that starts a pool's workers, watches them, and stops tasks and workers.

It is a template for the workers: either a *snapshot* (a fork of the client, taken where that is
safe) or *clean*: a fresh interpreter that imports what the client has imported. It has one thread,
runs no user code, and blocks all signals. It sleeps in poll() on its bell, the client's pidfd and
its workers' pidfds, until the nearest time limit.

The agent ends when its client does (pidfd). A worker ends when the agent does: it sets PDEATHSIG
right after its fork. That is safe because the agent has only one thread, so that thread lives as
long as the process.
Design: docs/design/pool.md
"""

from __future__ import annotations

import itertools
import os
import select
import signal

from shoal._runtime._native import core
from shoal._workers import _launch, _signals, _watch
from shoal._workers._agent_plan import AgentPlan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn


_forked = itertools.count()  # numbers the workers that this agent forks


class _Child:
    """A worker that is the agent's child."""

    def __init__(self, seat: int, pid: int, pidfd: int) -> None:
        self.seat = seat
        self.pid = pid
        self.fd = pidfd

    def send(self, number: int) -> None:
        try:
            core.signal_process(self.fd, self.pid, number)
        except ProcessLookupError:
            pass

    def wait(self) -> tuple[int, int] | None:
        os.close(self.fd)
        try:
            _, status, peak = core.wait4(self.pid, 0)
        except ChildProcessError:
            return None
        return status, peak


class Agent(_watch.Watch):
    """The agent's loop. `start(seat, rank)` returns the new worker's pid in the agent; in a forked
    worker it never returns.
    """

    def __init__(self, plan: AgentPlan, start: Callable[[int, int], int]) -> None:
        super().__init__(plan.pool, plan.bell_read)
        self.plan = plan
        self.start = start
        self.client_pidfd = core.watch_process(plan.client_pid)
        self.ends_with_client = {self.client_pidfd}  # readable when the client has ended

    def start_worker(self, seat: int, rank: int) -> _watch.Worker:
        try:
            # Here, not after the fork, it is noticed if no descriptor is left to watch the worker.
            os.close(os.dup(self.bell_read))
            pid = self.start(seat, rank)
        except OSError:
            self.supervisor.free_seat(seat)
            raise
        try:
            return _Child(seat, pid, core.watch_process(pid))
        except OSError:
            # The worker may be in its seat already, and even have taken a task.
            os.kill(pid, signal.SIGKILL)
            _, status, peak = core.wait4(pid, 0)
            self.supervisor.set_pid(seat, pid)
            self.supervisor.record_exit(seat, status, peak, False)
            raise

    def run(self) -> None:
        self.poll.register(self.client_pidfd, select.POLLIN)
        if os.getppid() != self.plan.client_pid:
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
                _watch.send_all(self.workers, signal.SIGKILL)
                return False
            self.see(fd)
        return True


def run_snapshot(plan: AgentPlan) -> NoReturn:
    """In the child of the client's fork."""

    def live() -> int:
        import gc

        import_for_workers()
        gc.freeze()  # garbage collection in the workers must not write to shared pages
        _signals.keep_out()
        core.incarnation()  # joins the session, or raises
        _run(plan, _fork_worker)
        return 0

    _launch.run_to_the_end(live)


def _run(plan: AgentPlan, starter: Callable[[AgentPlan, int, int], int]) -> None:
    try:
        agent = Agent(plan, lambda seat, rank: starter(plan, seat, rank))
    except ProcessLookupError:
        return  # the client has ended
    agent.run()


def import_for_workers() -> None:
    """Import in the agent what every worker would otherwise import after its fork."""
    from shoal._pickling import _load_graph  # noqa: F401
    from shoal._workers import _worker, _worker_process  # noqa: F401

    _worker.import_parts()


def _fork_worker(plan: AgentPlan, seat: int, rank: int) -> int:
    agent_pid, nth = os.getpid(), next(_forked)
    pid = os.fork()
    if pid == 0:
        from shoal._workers import _worker_process

        _worker_process.run_forked(plan, seat, rank, nth, agent_pid)
    return pid


def run_clean(plan: AgentPlan) -> NoReturn:
    """In a fresh interpreter."""
    from shoal._workers import _context

    def live() -> int:
        _signals.keep_out()
        core.join_session(plan.memory_fd)
        os.set_inheritable(plan.bell_read, False)
        if plan.method == "exec":
            starter = _exec_worker
            os.set_inheritable(plan.bell_write, True)
        else:
            starter = _fork_worker
            os.set_inheritable(plan.bell_write, False)
            _context.make_main(plan.context)
            _context.apply(plan.context)
            _context.import_modules(plan.context)
            _freeze()
        _run(plan, starter)
        return 0

    _launch.run_to_the_end(live)


def _freeze() -> None:
    import gc

    import_for_workers()
    gc.collect()
    gc.freeze()


def _exec_worker(plan: AgentPlan, seat: int, rank: int) -> int:
    memory_fd = core.session_fd()
    return _launch.spawn(
        "shoal._workers._worker_process",
        (plan._replace(memory_fd=memory_fd), seat, rank, os.getpid()),
        (memory_fd, plan.bell_write),
        plan.context,
    )


def main(plan: tuple[Any, ...]) -> NoReturn:
    """Entry point of the fresh interpreter; `shoal._workers._launch` calls it."""
    run_clean(AgentPlan(*plan))
