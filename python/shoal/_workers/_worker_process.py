# SPDX-License-Identifier: Apache-2.0
"""The worker processes of an agent: from the fork (or exec) to the first task, and the exit.

A worker runs inside `multiprocessing`'s own `BaseProcess._bootstrap`, because coverage, loggers,
finalizers and `multiprocessing.current_process()` rely on it.
Design: docs/design/pool.md
"""

from __future__ import annotations

import atexit
import os
import sys
from multiprocessing import process as stock_process
from multiprocessing import util

from shoal._runtime._native import core
from shoal._workers import _launch, _plan, _seeds, _signals, _worker
from shoal._workers._agent_plan import AgentPlan, worker_identity, worker_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

# From 3.13 on, `_bootstrap` leaves finalizers to its caller, and a forked process runs the
# functions registered with `atexit`.
_BOOTSTRAP_LEAVES_THE_END = sys.version_info >= (3, 13)


class WorkerProcess(stock_process.BaseProcess):
    """The object that `multiprocessing.current_process()` returns in a worker."""

    def __init__(
        self,
        plan: AgentPlan,
        seat: int,
        rank: int,
        unprepared: RuntimeError | None,
    ) -> None:
        super().__init__(name=worker_name(plan, rank), daemon=plan.daemons)
        self._start_method = plan.start_method
        # To users the parent is the process that made the pool, not the agent that forked this one.
        self._parent_pid = plan.client_pid
        self._identity = worker_identity(plan, rank)
        self.plan = plan
        self.seat = seat
        self.unprepared = unprepared  # why this worker cannot serve

    def run(self) -> None:
        told = self.plan
        plan = _plan.Plan(told.pool, told.context, told.results_by_name)
        _worker.serve(plan, self.seat, told.bell_write, self.unprepared)


def run_forked(plan: AgentPlan, seat: int, rank: int, nth: int, agent_pid: int) -> NoReturn:
    """In a forked child of the agent. `nth`: how many workers the agent had forked before."""

    def live() -> int:
        core.die_with_parent(agent_pid)
        _seeds.apply(_seeds.Seeds(*plan.seeds), (*worker_identity(plan, rank), nth))
        if _BOOTSTRAP_LEAVES_THE_END:
            atexit._clear()  # the inherited registrations are the parent's
            atexit.register(util._exit_function)  # type: ignore[attr-defined]
        try:
            return _bootstrap(plan, seat, rank)
        finally:
            if _BOOTSTRAP_LEAVES_THE_END:
                _run_exit_functions()

    _launch.run_to_the_end(live)


def main(arguments: tuple[Any, ...]) -> NoReturn:
    """In a fresh interpreter (start="spawn"). It exits normally: all its state is its own."""
    from shoal._workers import _context

    plan, (seat, rank, agent_pid) = AgentPlan(*arguments[0]), arguments[1:]
    core.die_with_parent(agent_pid)
    core.join_session(plan.memory_fd)
    os.set_inheritable(plan.bell_write, False)
    _context.apply(plan.context)
    _context.make_main(plan.context)
    sys.exit(_bootstrap(plan, seat, rank))


def _run_exit_functions() -> None:
    """Run the exit functions registered in this process, as the standard library's processes do."""
    atexit._run_exitfuncs()
    util._flush_std_streams()  # type: ignore[attr-defined]


def _bootstrap(plan: AgentPlan, seat: int, rank: int) -> int:
    from shoal._workers import _context

    core.incarnation()  # joins the session, or raises
    _signals.let_in(plan.mask)  # before the main module's import, which may set handlers
    unprepared = None
    try:
        _context.prepare(plan.context, worker_name(plan, rank))
    except RuntimeError as error:
        unprepared = error
    process: Any = WorkerProcess(plan, seat, rank, unprepared)
    # A pidfd, readable when the client has ended. multiprocessing.parent_process() waits for it.
    return int(process._bootstrap(parent_sentinel=core.watch_process(plan.client_pid)))
