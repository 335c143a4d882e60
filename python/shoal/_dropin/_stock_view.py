# SPDX-License-Identifier: Apache-2.0
"""The private attributes of the standard library that list a pool's workers, emulated for shoal.

Monitoring code and CPython's tests read `pool._pool` and `executor._processes`. They are views:
computed on each access, and writing into them changes nothing.

Module state: `_views`, the views that are still referenced, by process id.
"""

from __future__ import annotations

import os
import select
import signal
import time
import weakref

from shoal._runtime._native import core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shoal._pool._engine import Engine

_PATIENCE = 10.0  # seconds to wait for workers that are being started
_views: weakref.WeakValueDictionary[int, WorkerView] = weakref.WeakValueDictionary()


class WorkerView:
    """A worker with the interface of a `multiprocessing.Process`, as far as that is possible for a
    process that is not a child of this one.
    """

    daemon = True

    def __init__(self, pid: int, name: str) -> None:
        self.pid = self.ident = pid
        self.name = name
        try:
            self._pidfd = core.watch_process(pid)
        except ProcessLookupError:
            self._pidfd = -1

    def __del__(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)

    @property
    def sentinel(self) -> int:
        """Readable once the worker has ended."""
        return self._pidfd

    @property
    def exitcode(self) -> int | None:
        """None while the worker lives, then always 0: only the agent knows its exit status."""
        return None if self.is_alive() else 0

    def is_alive(self) -> bool:
        return self._pidfd >= 0 and not self._wait(0)

    def join(self, timeout: float | None = None) -> None:
        if self._pidfd >= 0:
            self._wait(None if timeout is None else max(0.0, timeout * 1000))

    def _wait(self, milliseconds: float | None) -> bool:
        """Whether the worker has ended by then."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(milliseconds))

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._pidfd >= 0:
            try:
                core.signal_process(self._pidfd, self.pid, number)
            except ProcessLookupError:
                pass

    def __repr__(self) -> str:
        state = "started" if self.is_alive() else "stopped"
        return f"<{self.name} pid={self.pid} {state} daemon>"


def view_workers(engine: Engine, prefix: str) -> list[Any]:
    """The workers of a pool. If they are children of this process, their process objects. Otherwise
    views of them, busy workers first, after a bounded wait for workers that are being started.
    """
    processes = getattr(engine._agent, "processes", None)
    if processes is not None:
        return list(processes)
    deadline = time.monotonic() + _PATIENCE
    pids = engine.worker_pids()
    while time.monotonic() < deadline and not engine._agent.ended:
        if len(pids) >= engine.client.wanted or engine.broken is not None or engine.closed:
            break
        time.sleep(0.001)
        pids = engine.worker_pids()
    if not engine._agent.ended:
        busy = {seat["pid"] for seat in engine.client.seats() if seat["running"]}
        pids.sort(key=lambda pid: pid not in busy)
    return [_view(pid, f"{prefix}-{number}") for number, pid in enumerate(pids, 1)]


def _view(pid: int, name: str) -> WorkerView:
    """The view of a worker; the same object as long as it is referenced."""
    view = _views.get(pid)
    if view is None or not view.is_alive():  # if dead, the pid now belongs to another process
        view = _views[pid] = WorkerView(pid, name)
    return view


def wait_for_initializers(engine: Engine) -> None:
    """Wait until each worker has started and run its initializer, or the pool has given up."""
    deadline = time.monotonic() + _PATIENCE
    while engine.broken is None and not engine._agent.ended and time.monotonic() < deadline:
        if sum(seat["ready"] for seat in engine.client.seats()) >= engine.client.wanted:
            return
        engine.client.collect(0.001)


def wait_for_a_beginning(engine: Engine) -> None:
    """Wait until a worker has begun a task, or no task is open, so that the first tasks are not
    withdrawn.
    """
    deadline = time.monotonic() + _PATIENCE
    while engine.client.busy and not engine._agent.ended and time.monotonic() < deadline:
        if any(seat["running"] or seat["tasks"] for seat in engine.client.seats()):
            return
        engine.client.collect(0.001)


class WorkersEnd:
    """Emulates joining the stock executor's manager thread or queue, which wait for the end of the
    workers.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def join(self, timeout: float | None = None) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._engine._agent.ended and (deadline is None or time.monotonic() < deadline):
            time.sleep(0.001)

    join_thread = join

    def is_alive(self) -> bool:
        return not self._engine._agent.ended
