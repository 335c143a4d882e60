# SPDX-License-Identifier: Apache-2.0
"""A program that only asks whether its results are there, and never waits, notices the death of the
pool's agent too: its tasks end with their workers, and the pool goes on with another agent.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError  # 3.10: not the built-in one
from typing import Any

import pytest
import shoal
from pool_kinds import WATCHDOG

pytestmark = WATCHDOG


def _begin_and_wait(begun: Any) -> None:
    begun.set()
    signal.pause()


def _kill_agent(pool: Any) -> None:
    os.kill(pool._engine._agent.pid, signal.SIGKILL)


def _future_is_there(future: Future[Any]) -> bool:
    try:
        future.result(timeout=0)
    except FutureTimeoutError:
        return False
    except shoal.WorkerDied:
        pass
    return True


ASK = {
    "ready": ("apply_async", lambda result: result.ready()),
    "map ready": ("map_async", lambda result: result.ready()),
    "wait": ("apply_async", lambda result: result.wait(0) or result._state != 0),
    "map wait": ("map_async", lambda result: result.wait(0) or result._state != 0),
    "done": ("submit", lambda future: future.done()),
    "result": ("submit", _future_is_there),
}


@pytest.mark.parametrize("how", ASK)
def test_polling_notices_that_the_agent_was_killed(how: str, wait_until: Any) -> None:
    method, is_there = ASK[how]
    begun = shoal.Event()
    with shoal.Executor(1) if method == "submit" else shoal.Pool(1) as pool:
        argument = {"apply_async": (begun,), "map_async": [begun], "submit": begun}[method]
        result = getattr(pool, method)(_begin_and_wait, argument)
        begun.wait()
        _kill_agent(pool)
        wait_until(lambda: is_there(result), "the outcome")
        with pytest.raises(shoal.WorkerDied):
            result.result() if method == "submit" else result.get()
        assert list(pool.map(abs, [-1])) == [1]


@pytest.mark.parametrize("method", ["imap", "imap_unordered"])
def test_polling_an_iterator_notices_that_the_agent_was_killed(method: str, wait_until) -> None:
    begun = shoal.Event()
    outcomes: list[BaseException] = []

    def has_next() -> bool:
        try:
            results.next(timeout=0)
        except multiprocessing.TimeoutError:
            return False
        except shoal.WorkerDied as error:
            outcomes.append(error)
        return bool(outcomes)

    with shoal.Pool(1) as pool:
        results = getattr(pool, method)(_begin_and_wait, [begun])
        begun.wait()
        _kill_agent(pool)
        wait_until(has_next, "the outcome")
        assert pool.map(abs, [-1]) == [1]
