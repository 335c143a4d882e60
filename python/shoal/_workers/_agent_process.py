# SPDX-License-Identifier: Apache-2.0
"""The client's view of a pool's agent: starting it (a snapshot of this process, or a clean one),
ringing it, starting it anew when it was killed, waiting for its end.

Used by the engine alone, which holds its process lock around start, restart and the end.
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


_PATIENCE = 5  # agents in a row without a worker


class AgentProcess:
    """The client's view of its agent."""

    def __init__(self) -> None:
        self.pid = 0
        self.pidfd = -1
        # Both ends, while there is an agent: a write to a pipe that nobody can read from would end
        # a program that has the default action for SIGPIPE.
        self.bell = self.bell_read = -1
        self.template = _template.UNDECIDED
        self.ended = False
        self._startup_stored = False
        self._barren = 0
        self._numbers: tuple[int, ...] = ()

    def start(self, engine: Engine, own_threads: int) -> None:
        """Start it. A Ctrl-C waits until all is in place: fork handlers could not take it.
        `own_threads`: shoal's, which do not hinder a snapshot.
        """
        seeds = _seeds.capture(inherited=False)
        with _signals.interrupts_wait() as mask:
            self._for_workers = mask, tuple(seeds)
            self._start(engine, own_threads)
            self.pidfd = core.watch_process(self.pid)
            engine.client.set_agent(self.pidfd)

    def _start(self, engine: Engine, own_threads: int) -> None:
        refusal = None
        if engine.start != "spawn":
            refusal = _fork_safety.refusal(own_threads)
        # What was encoded for workers made from a snapshot names what only a snapshot has; threads
        # that were started meanwhile are a smaller risk, as for the standard library's fork.
        forced = self.template.is_copy and self.pid != 0
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
        if not self._numbers:  # of the program's processes, so that no two have one name
            counter = stock_process._process_counter  # type: ignore[attr-defined]
            self._numbers = tuple(next(counter) for _ in range(engine.workers))
        mask, seeds = self._for_workers
        return _agent_plan.AgentPlan(
            engine.client.handle,
            core.incarnation(),
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
        _agent.import_for_workers()  # here, once, instead of in every agent and worker
        if not self._startup_stored:
            engine.definitions.workers_have(ForkedMain())
        self._store_startup(engine)
        plan = self._make_plan(engine, "fork", {})
        _flush()
        import warnings

        with warnings.catch_warnings():
            # _fork_safety.refusal() has looked at the threads
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = os.fork()
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
        """Once, for the first agent's kind of template; later ones are of that kind."""
        if not self._startup_stored:
            self._startup_stored = True
            engine.store_startup()

    def ring(self) -> None:
        try:
            os.write(self.bell, b"!")
        except OSError:
            pass  # full: it has been rung; closed: the agent has ended

    start_workers_now = ring  # there are to be more: the agent looks when it is rung

    def restart(self, engine: Engine, own_threads: int) -> None:
        """The agent was killed, and its workers with it."""
        with engine._process_lock:
            if self.ended or engine._ending or not self._has_died():
                return  # by now another thread has started the next one
            self._barren = 0 if engine.worker_pids() else self._barren + 1
            if not engine.client.bury():
                return  # the workers are dying: the next wait comes here again
            self._wait()
            dead = self.pidfd
            # when this fails the dead one stays known, and who waits tries again
            self.start(engine, own_threads)
            os.close(dead)

    def is_barren(self) -> bool:
        """So many agents in a row have ended without a worker that the next one would, too."""
        return self._barren >= _PATIENCE

    def _has_died(self) -> bool:
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def _wait(self) -> None:
        try:
            os.waitpid(self.pid, 0)
        except ChildProcessError:  # the program has waited for it
            poll = select.poll()
            poll.register(self.pidfd, select.POLLIN)
            poll.poll()

    def _reap(self) -> None:
        if self.pidfd < 0:
            return
        self._wait()
        pidfd, self.pidfd = self.pidfd, -1
        os.close(pidfd)
        self._close_bell()

    def _close_bell(self) -> None:
        ends, self.bell, self.bell_read = (self.bell, self.bell_read), -1, -1
        for end in ends:
            if end >= 0:
                os.close(end)

    def kill(self) -> None:
        """Give up while starting."""
        if self.pid and not self.ended:
            self.ended = True
            os.kill(self.pid, signal.SIGKILL)
            self._reap()
        self._close_bell()

    def wait_for_end(self, client: Any) -> None:
        """The phase is set: the agent leaves when its workers have left."""
        self.ring()
        self._reap()
        while not client.bury():
            time.sleep(0.001)
        self.ended = True


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, ValueError, OSError):
            pass
