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
from typing import TYPE_CHECKING, Any

from shoal import _agent, _snapshot
from shoal._definitions import Snapshot
from shoal._native import core

if TYPE_CHECKING:
    from shoal._engine import Engine


PATIENCE = 3  # agents in a row that the fork server is asked for without a worker of theirs


class AgentProcess:
    """The client's view of its agent."""

    def __init__(self) -> None:
        self.pid = 0
        self.pidfd = -1
        self.bell = -1
        self.template = ""
        self.ended = False
        self._startup_stored = False
        self._asked = 0  # how often the fork server was, since a worker came of it
        self._popen: Any = None  # of the fork server's child; keeps open what tells it of our end

    def start(self, engine: Engine, own_threads: int) -> None:
        """Start it. A Ctrl-C waits until all is in place: fork handlers could not take it.
        `own_threads`: shoal's, which do not hinder a snapshot.
        """
        # Without the mask: a fork server that starts would inherit it, and nothing is forked here.
        if engine.uses_fork_server() and self._start_in_fork_server(engine):
            engine.client.set_agent(self.pidfd)
            return
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._start(engine, own_threads)
            self.pidfd = os.pidfd_open(self.pid)
            engine.client.set_agent(self.pidfd)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _start(self, engine: Engine, own_threads: int) -> None:
        refusal = None
        if engine.start != "spawn":
            refusal = _snapshot.refusal(own_threads)
        # What was encoded for workers made from a snapshot names what only a snapshot has; threads
        # that were started meanwhile are a smaller risk, as for the standard library's fork.
        forced = self.pid != 0 or (engine.start == "fork" and getattr(engine, "force_fork", False))
        forced = forced and not self.template.startswith("a clean")
        if engine.start == "spawn":
            self._start_clean(engine, "exec", "spawn: every worker is a fresh interpreter")
        elif engine.uses_fork_server():
            self._start_clean(engine, "fork", "a clean template, as the fork server fails")
        elif refusal is None or forced:
            self._start_snapshot(engine)
        else:
            self._start_clean(engine, "fork", f"a clean template, because {refusal}")

    def _settings(self, engine: Engine, method: str, context: dict[str, Any]) -> _agent.Settings:
        self._close_bell()
        read, self.bell = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        return _agent.Settings(
            engine.client.handle,
            core.incarnation(),
            os.getpid(),
            read,
            self.bell,
            method,
            engine.name,
            core.session_fd(),
            context,
            engine.results_by_name,
            engine.daemons,
            engine.start_method,
        )

    def _start_snapshot(self, engine: Engine) -> None:
        self.template = "a snapshot of this process"
        _agent.import_for_workers()  # here, once, instead of in every agent and worker
        if not self._startup_stored:
            engine.definitions.workers_have(Snapshot())
        self._store_startup(engine)
        settings = self._settings(engine, "fork", {})
        _flush()
        import warnings

        with warnings.catch_warnings():
            # _snapshot.refusal() has looked at the threads
            warnings.simplefilter("ignore", DeprecationWarning)
            try:
                pid = os.fork()
            except OSError:
                os.close(settings.bell_read)
                raise
            self.pid = pid
        if self.pid == 0:
            _agent.run_snapshot(settings)
        os.close(settings.bell_read)

    def _start_clean(self, engine: Engine, method: str, template: str) -> None:
        from shoal import _context, _launch

        self.template = template
        self._store_startup(engine)
        context = _context.capture(method == "fork", engine.preparation())
        settings = self._settings(engine, method, context)
        _flush()
        fds = (settings.memory_fd, settings.bell_read, settings.bell_write)
        try:
            self.pid = _launch.spawn("shoal._agent", settings, fds, context)
        finally:
            os.close(settings.bell_read)

    def _start_in_fork_server(self, engine: Engine) -> bool:
        """False: the fork server does not answer, or what it starts does not live."""
        if self._asked == PATIENCE:
            return False
        self._asked += 1
        from multiprocessing import forkserver

        from shoal import _context, _in_fork_server, _session

        _session.carry_session()
        forkserver.ensure_running()
        self.template = "a clean template, forked by the fork server"
        self._store_startup(engine)
        context = _context.capture(False, engine.preparation())
        settings = self._settings(engine, "fork", context)
        _flush()
        self._popen = None  # the last agent's
        try:
            self._popen = _in_fork_server.start(settings)
        except (OSError, EOFError):
            return False
        finally:
            os.close(settings.bell_read)
        self.pid = self._popen.pid
        try:
            self.pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False  # the fork server has waited for it
        return True

    def _store_startup(self, engine: Engine) -> None:
        """Once, for the first agent's kind of template; later ones are of that kind."""
        if not self._startup_stored:
            self._startup_stored = True
            engine.store_startup()

    def ring(self) -> None:
        try:
            os.write(self.bell, b"!")
        except OSError:
            pass  # full: it has been rung; broken: it is gone, which the pidfd tells

    def restart(self, engine: Engine, own_threads: int) -> None:
        """The agent was killed, and its workers with it."""
        with engine._process_lock:
            if self.ended or engine._ending or not self._has_died():
                return  # by now another thread has started the next one
            if engine.worker_pids():
                self._asked = 0  # it was a good one
            if not engine.client.bury():
                return  # the workers are dying: who waits comes here again
            self._wait()
            dead = self.pidfd
            # when this fails the dead one stays known, and who waits tries again
            self.start(engine, own_threads)
            os.close(dead)

    def _has_died(self) -> bool:
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def _wait(self) -> None:
        try:
            os.waitpid(self.pid, 0)
        except ChildProcessError:  # the fork server's child, or the program has waited for it
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
        bell, self.bell = self.bell, -1
        if bell >= 0:
            os.close(bell)

    def kill(self) -> None:
        """Give up while starting."""
        if self.pid and not self.ended:
            self.ended = True
            try:
                os.kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # the fork server has waited for it
            self._reap()

    def wait_for_end(self, client: Any) -> None:
        """The phase is set: the agent leaves when its workers have left."""
        self.ring()
        self._reap()
        while not client.bury():
            time.sleep(0.001)
        self.ended = True
        self._popen = None  # and its descriptors


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, ValueError, OSError):
            pass
