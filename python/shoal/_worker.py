# SPDX-License-Identifier: Apache-2.0
"""A worker process: from the fork (or exec) to its last task.

It runs inside `multiprocessing`'s own `BaseProcess._bootstrap`, so that whatever hooks that
(coverage, loggers, finalizers, `multiprocessing.current_process()`) finds what it expects. Workers
of an agent begin here; those of the drop-in are processes of `multiprocessing` already
(`_dropin_processes.py`), and come to `serve`.
Design: docs/design/pool.md
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from multiprocessing import process as stock_process
from multiprocessing import util

from shoal import _agent, _launch, _plan, _seeds, _signals, _watch
from shoal._native import core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

PLANNED, INITIALIZER_FAILED = 1, 2
# From 3.13 on, finalizers are run by who calls `_bootstrap`, and a fork runs `atexit`'s functions.
_BOOTSTRAP_LEAVES_THE_END = sys.version_info >= (3, 13)


class TaskInterrupted(BaseException):
    """Raised inside a task that is to stop: its time is up or it was cancelled."""


class WorkerProcess(stock_process.BaseProcess):
    """What `multiprocessing.current_process()` is in a worker."""

    def __init__(
        self, settings: _agent.Settings, seat: int, rank: int, unprepared: RuntimeError | None
    ) -> None:
        super().__init__(name=_agent.worker_name(settings, rank), daemon=settings.daemons)
        self._start_method = settings.start_method
        # The process that made the pool is the parent to users, whoever forked this one.
        self._parent_pid = settings.client_pid
        self._identity = _agent.worker_identity(settings, rank)
        self.settings = settings
        self.seat = seat
        self.unprepared = unprepared  # why this worker cannot serve

    def run(self) -> None:
        told = self.settings
        plan = _plan.Plan(told.pool, told.client, told.context, told.results_by_name)
        serve(plan, self.seat, told.bell_write, self.unprepared)


def run_forked(
    settings: _agent.Settings, seat: int, rank: int, nth: int, agent_pid: int
) -> NoReturn:
    """In the child of the agent's fork, its `nth`."""

    def live() -> int:
        core.die_with_parent(agent_pid)
        _seeds.apply(_seeds.Seeds(*settings.seeds), (*_agent.worker_identity(settings, rank), nth))
        if _BOOTSTRAP_LEAVES_THE_END:
            atexit._clear()  # what is registered here is the parent's
            atexit.register(util._exit_function)  # type: ignore[attr-defined]
        try:
            return _bootstrap(settings, seat, rank)
        finally:
            if _BOOTSTRAP_LEAVES_THE_END:
                _run_exit_functions()

    _launch.run_to_the_end(live)


def main(arguments: tuple[Any, ...]) -> NoReturn:
    """In a fresh interpreter (start="spawn"). It ends as any: all that is in it is its own."""
    from shoal import _context

    settings, (seat, rank, agent_pid) = _agent.Settings(*arguments[0]), arguments[1:]
    core.die_with_parent(agent_pid)
    core.join_session(settings.memory_fd, settings.client)
    os.set_inheritable(settings.bell_write, False)
    _context.apply(settings.context)
    _context.make_main(settings.context)
    sys.exit(_bootstrap(settings, seat, rank))


def _run_exit_functions() -> None:
    """What was registered in this process for its end, as the standard library's processes do."""
    atexit._run_exitfuncs()
    util._flush_std_streams()  # type: ignore[attr-defined]


def _bootstrap(settings: _agent.Settings, seat: int, rank: int) -> int:
    from shoal import _context

    core.set_bond(settings.client)
    _signals.let_in(settings.mask)  # before the main module's import, which may set handlers
    unprepared = None
    try:
        _context.prepare(settings.context, _agent.worker_name(settings, rank))
    except RuntimeError as error:
        unprepared = error
    process: Any = WorkerProcess(settings, seat, rank, unprepared)
    # Readable when the client has ended: what multiprocessing.parent_process() waits for.
    return int(process._bootstrap(parent_sentinel=core.watch_process(settings.client_pid)))


def serve(plan: _plan.Plan, seat: int, bell: int, unprepared: RuntimeError | None) -> None:
    """Initialize, then run tasks until the pool ends. `bell`: the write end of the bell of whoever
    watches this worker. `unprepared`: why it cannot serve.
    """
    from shoal import _context, _hooks
    from shoal._definitions import Applied

    imported = _context.imports_main(plan.context)
    applied = Applied(snapshot=not plan.context, imported=imported)
    hooks = _hooks.WorkerHooks(applied, plan.results_by_name)
    worker = core.Worker(plan.pool, seat, bell, hooks, TaskInterrupted)

    def stop(number: int, frame: object) -> None:
        if worker.stopping():
            raise TaskInterrupted

    _signals.catch_stop(_watch.STOP_SIGNAL, stop)
    _prefer_as_victim()
    _initialize(worker, hooks, unprepared)
    worker.run()
    _signals.leave()
    worker.leaving(PLANNED)
    # What the main module holds is freed with it, not kept to the interpreter's very end by us.
    signal.signal(_watch.STOP_SIGNAL, signal.SIG_IGN)
    applied.end()


def _initialize(worker: Any, hooks: Any, unprepared: RuntimeError | None) -> None:
    payload = worker.startup()
    if payload is None and unprepared is None:
        return
    try:
        if unprepared is not None:
            raise unprepared
        worker.apply_definitions()
        from shoal import _pickling

        initializer, arguments = _pickling.loads(payload)
        initializer(*arguments)
    except BaseException as error:
        worker.fail_start(hooks.encode_error(error, "run"))
        worker.leaving(INITIALIZER_FAILED)
        core.leave_session()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


def _prefer_as_victim() -> None:
    """When memory runs out the kernel should take a worker, which is replaced, not the client."""
    try:
        with open("/proc/self/oom_score_adj", "r+", encoding="utf-8") as file:
            score = int(file.read())
            file.seek(0)
            file.write(str(min(1000, score + 100)))
    except OSError:
        pass
