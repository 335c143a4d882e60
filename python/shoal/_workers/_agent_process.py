# SPDX-License-Identifier: Apache-2.0
"""The client's view of a pool's agent: starting it (as a snapshot of this process or clean),
ringing its bell, restarting it after it was killed, waiting for its end.

Only the engine uses it, and holds its process lock around start, restart and end.
Design: docs/design/pool.md
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from multiprocessing import process as stock_process

from shoal._pickling._definitions import ForkedMain
from shoal._runtime._native import core
from shoal._workers import _agent, _agent_plan, _fork_safety, _seeds, _signals, _template
from shoal._workers._template import Kind, Template

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shoal._pool._engine import Engine


_PATIENCE = 5  # consecutive agents without a worker after which no more are started
_END_PATIENCE_MS = 5_000  # several times what the agent of a terminated pool gives its workers


class AgentProcess:
    """The client's view of its agent."""

    def __init__(self) -> None:
        self.pid = 0
        self.pidfd = -1
        # Both ends stay open while there is an agent. Writing to a pipe without a reader would kill
        # a program that has the default action for SIGPIPE.
        self.bell = self.bell_read = -1
        self.template = _template.UNDECIDED
        self.ended = False
        self._startup_stored = False
        self._barren = 0
        self._numbers: tuple[int, ...] = ()

    def start(self, engine: Engine, own_threads: int) -> None:
        """Start the agent. Signals are held back until the start is complete: what a handler raised
        during the fork would leave an agent behind that nobody knows. `own_threads`: the number of
        shoal's own threads, which do not prevent a snapshot.
        """
        seeds = _seeds.capture(inherited=False)
        with _signals.interrupts_wait() as mask:
            self._for_workers = mask, tuple(seeds)
            self._start(engine, own_threads)
            try:
                self.pidfd = core.watch_process(self.pid)
            except BaseException:
                pid, self.pid = self.pid, 0
                os.kill(pid, signal.SIGKILL)
                _collect_status(pid)
                raise
            engine.client.set_agent(self.pidfd)

    def _start(self, engine: Engine, own_threads: int) -> None:
        refusal = None
        if engine.start != "spawn":
            refusal = _fork_safety.refusal(own_threads)
        # Messages that were encoded for workers of a snapshot refer to names that only a snapshot
        # has. So a restart takes another snapshot even if threads run by now: that is the smaller
        # risk, and the standard library's fork takes it too.
        forced = self.template.is_copy
        if engine.start == "spawn":
            self._start_clean(engine, "exec", Template(Kind.FRESH))
        elif refusal is None or forced:
            self._start_snapshot(engine)
        else:
            self._start_clean(engine, "fork", Template(Kind.CLEAN, refusal))

    def _make_plan(
        self, engine: Engine, method: str, context: dict[str, Any]
    ) -> _agent_plan.AgentPlan:
        self._close_bell()
        self.bell_read, self.bell = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        process: Any = stock_process.current_process()
        if not self._numbers:  # from the program's process counter, so that names are unique
            counter = stock_process._process_counter  # type: ignore[attr-defined]
            self._numbers = tuple(next(counter) for _ in range(engine.workers))
        mask, seeds = self._for_workers
        return _agent_plan.AgentPlan(
            engine.client.handle,
            os.getpid(),
            self.bell_read,
            self.bell,
            method,
            engine.name,
            process._identity,
            self._numbers,
            core.session_fd(),
            context,
            engine.results_by_name,
            engine.daemons,
            engine.start_method,
            mask,
            seeds,
        )

    def _start_snapshot(self, engine: Engine) -> None:
        self.template = Template(Kind.SNAPSHOT)
        _agent.import_for_workers()  # once in the client instead of in every agent and worker
        if not self._startup_stored:
            engine.definitions.workers_have(ForkedMain())
        self._store_startup(engine)
        plan = self._make_plan(engine, "fork", {})
        _flush()
        import warnings

        with warnings.catch_warnings():
            # _fork_safety.refusal() has checked the threads
            warnings.simplefilter("ignore", DeprecationWarning)
            # C code stores the pid: no handler can raise between the fork and that.
            self.__dict__.update(zip(("pid",), iter(os.fork, None)))
        if self.pid == 0:
            _agent.run_snapshot(plan)

    def _start_clean(self, engine: Engine, method: str, template: Template) -> None:
        from shoal._workers import _context, _launch

        self.template = template
        self._store_startup(engine)
        context = _context.capture(method == "fork", engine.preparation())
        plan = self._make_plan(engine, method, context)
        _flush()
        fds = (plan.memory_fd, plan.bell_read, plan.bell_write)
        self.pid = _launch.spawn("shoal._workers._agent", plan, fds, context)

    def _store_startup(self, engine: Engine) -> None:
        """Store the initializer once, for the first agent's kind of template; later agents are of
        the same kind.
        """
        if not self._startup_stored:
            self._startup_stored = True
            engine.store_startup()

    def ring(self) -> None:
        try:
            os.write(self.bell, b"!")
        except OSError:
            pass  # the pipe is full: the bell was rung already; or closed: the agent has ended

    start_workers_now = ring  # the agent looks for missing workers when its bell is rung

    def restart(self, engine: Engine, own_threads: int) -> None:
        """Start another agent after this one was killed, and its workers with it."""
        with engine._process_lock:
            if self.ended or engine._ending or not self._has_died():
                return  # another thread has already started the next agent
            self._barren = 0 if engine.worker_pids() else self._barren + 1
            if not engine.client.bury():
                return  # the workers are still dying: the core's next wait calls `restart` again
            self._wait()
            dead = self.pidfd
            # if this fails, `pidfd` still names the dead agent, and the next wait tries again
            try:
                self.start(engine, own_threads)
            finally:
                if self.pidfd != dead:
                    os.close(dead)

    def is_barren(self) -> bool:
        """Whether so many agents in a row have ended without a worker that the pool gives up."""
        return self._barren >= _PATIENCE

    def _has_died(self, timeout_ms: float | None = 0) -> bool:
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(timeout_ms))

    def _wait(self) -> None:
        self._has_died(None)
        if self.pid:
            _collect_status(self.pid)

    def _reap(self) -> None:
        if self.pidfd >= 0:
            self._wait()
            pidfd, self.pidfd = self.pidfd, -1
            os.close(pidfd)
        self._close_bell()

    def _send(self, number: int) -> None:
        try:
            core.signal_process(self.pidfd, self.pid, number)
        except ProcessLookupError:
            pass

    def _close_bell(self) -> None:
        ends, self.bell, self.bell_read = (self.bell, self.bell_read), -1, -1
        for end in ends:
            if end >= 0:
                os.close(end)

    def kill(self, client: Any) -> None:
        """Kill the agent after a failed start, and wait until its workers, too, are gone: the
        caller frees what they use.
        """
        with _signals.interrupts_wait():
            self.ended = True
            self.ring()
            pid, self.pid = self.pid, 0
            if pid:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:  # the program has reaped the agent itself
                    pass
                _collect_status(pid)
            self._reap()
            _bury(client)

    def wait_for_end(self, client: Any, stopping: bool) -> None:
        """Wait for the agent, which ends after its workers. The caller has set the pool's phase.
        `stopping`: the agent kills workers that take long.

        Something may have stopped the agent itself (SIGSTOP). What it would kill ends with it, so
        it is killed; where it only waits for exit functions of workers, it is continued.
        """
        self.ring()
        while self.pidfd >= 0 and not self._has_died(_END_PATIENCE_MS):
            self._send(signal.SIGKILL if stopping else signal.SIGCONT)
        self._reap()
        _bury(client)
        self.ended = True


def _collect_status(pid: int) -> None:
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:  # the program has done so itself
        pass


def _bury(client: Any) -> None:
    while not client.bury():
        time.sleep(0.001)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, ValueError, OSError):
            pass
