# SPDX-License-Identifier: Apache-2.0
"""How the crash tests kill: workers only, never a process that merely got a dead worker's pid.

Pids are used again within seconds on a busy machine, so a worker is signalled through a pidfd, and
only after its parent was seen to be the pool's agent.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import shoal
from shoal._runtime._native import core


def parent_of(pid: int) -> int:
    """The parent's pid; 0 when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(text.rpartition(")")[2].split()[1])


def state_of(pid: int) -> str:
    """R, S, T (stopped), Z ...; empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def agent_pid(pool: Any) -> int:
    return int(pool._engine._agent.pid)


def signal_child(parent: int, pid: int, number: int = signal.SIGKILL) -> bool:
    """Signals `pid` if it is a child of `parent`; False when it is gone or somebody else's."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if parent_of(pid) != parent:
            return False
        signal.pidfd_send_signal(pidfd, number)
        return True
    except OSError:
        return False
    finally:
        os.close(pidfd)


def kill_worker(pool: Any, pid: int, number: int = signal.SIGKILL) -> bool:
    return signal_child(agent_pid(pool), pid, number)


def kill_agent(pool: Any) -> None:
    signal.pidfd_send_signal(pool._engine._agent.pidfd, signal.SIGKILL)


class Storm:
    """A thread that kills a random worker of the pool about every `every` seconds, while the block
    runs.
    """

    def __init__(self, pool: Any, every: float, seed: int, agent_too: float = 0.0) -> None:
        self.pool = pool
        self.every = every
        self.random = random.Random(seed)
        self.agent_too = agent_too  # probability that the agent is killed instead
        self.kills = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="storm")

    def _run(self) -> None:
        while not self._over.wait(self.random.uniform(0, 2 * self.every)):
            try:
                pids = self._victims()
                if pids and self.random.random() < self.agent_too:
                    kill_agent(self.pool)
                    self.kills += 1
                    continue
            except (OSError, ValueError, RuntimeError):  # the pool ends
                continue
            if pids and kill_worker(self.pool, self.random.choice(pids)):
                self.kills += 1

    def _victims(self) -> list[int]:
        """All workers, but none while none is ready: a storm that is faster than starts proves
        nothing.
        """
        seats = [seat for seat in self.pool._engine.client.seats() if seat["pid"]]
        return [seat["pid"] for seat in seats] if any(seat["ready"] for seat in seats) else []

    def __enter__(self) -> Storm:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def outcomes(results: Iterator[Any]) -> list[Any]:
    """All outcomes of an imap: values, and WorkerDied in the places of the lost."""
    found: list[Any] = []
    while True:
        try:
            found.append(next(results))
        except StopIteration:
            return found
        except shoal.WorkerDied as error:
            found.append(error)


def check_outcomes(found: list[Any], expected: Callable[[int], Any], count: int) -> int:
    """Exactly one outcome each, in its place; returns how many were lost."""
    assert len(found) == count, f"{len(found)} outcomes of {count} tasks"
    lost = 0
    for index, value in enumerate(found):
        if isinstance(value, shoal.WorkerDied):
            lost += 1
        else:
            assert value == expected(index), f"task {index} gave {value!r}"
    return lost


def wait_for(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.002)


def ready_workers(pool: Any) -> list[int]:
    """Workers that can take tasks now. Deaths known to the client are resolved by looking."""
    engine = pool._engine
    engine.client.collect(0)
    return [seat["pid"] for seat in engine.client.seats() if seat["ready"] and seat["pid"]]


def check_strength(pool: Any, workers: int) -> None:
    """The pool has its full number of live workers again, and they work."""
    wait_for(
        lambda: len(ready_workers(pool)) == workers and all(map(state_of, ready_workers(pool))),
        f"{workers} workers; there are {pool._engine.client.seats()}",
    )
    assert pool.map(abs, range(-50, 0), chunksize=1) == list(range(50, 0, -1))


def memory_in_use() -> int:
    return int(core.arena_statistics()["in_use"])


def check_memory(before: int) -> None:
    """Everything that tasks and dead workers held has been given back."""
    wait_for(
        lambda: memory_in_use() <= before, f"memory in use: {memory_in_use()}, was {before}", 10
    )
