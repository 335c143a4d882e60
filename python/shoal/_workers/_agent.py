# SPDX-License-Identifier: Apache-2.0
"""The agent: the process that starts a pool's workers, watches them, and stops what must stop.

It is a template of the worker: either a *snapshot* (a fork of the client, taken where that is safe)
or *clean*: a fresh interpreter that imports what the client has imported. It has one thread, runs
no user code, blocks all signals, and sleeps in poll() on: its bell, the client's pidfd, its
workers' pidfds, and the nearest time limit.

Who dies with whom: the agent ends when its client does (pidfd), the workers when the agent does
(PDEATHSIG, set by each worker right after its fork; safe because the agent has one thread, which
lives as long as it does).
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


_forked = itertools.count()  # workers of this agent so far


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
    """The loop. `start(seat, rank)` returns the new worker's pid; never returns there."""

    def __init__(self, plan: AgentPlan, start: Callable[[int, int], int]) -> None:
        super().__init__(plan.pool, plan.bell_read)
        self.plan = plan
        self.start = start
        self.client_pidfd = core.watch_process(plan.client_pid)
        self.ends_with_client = {self.client_pidfd}  # readable when the client has ended

    def start_worker(self, seat: int, rank: int) -> _watch.Worker:
        pid = self.start(seat, rank)
        return _Child(seat, pid, core.watch_process(pid))

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
        gc.freeze()  # collections in the workers leave what they share alone
        _signals.keep_out()
        core.set_bond(plan.client)
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
    """Once here, so that not every worker does it after its fork."""
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
        core.join_session(plan.memory_fd, plan.client)
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
    """Entry of the fresh interpreter (shoal._workers._launch)."""
    run_clean(AgentPlan(*plan))
