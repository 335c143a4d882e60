# SPDX-License-Identifier: Apache-2.0
"""The agent is killed: its workers die with it, somebody who waits starts another, and the pool
goes on.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import shoal
from killing import (
    agent_pid,
    check_outcomes,
    check_strength,
    kill_agent,
    outcomes,
    state_of,
    wait_for,
)

WORKERS = 2


@pytest.fixture(params=["zygote", "spawn"])
def pool(request: pytest.FixtureRequest) -> Iterator[shoal.Pool]:
    with shoal.Pool(WORKERS, start=request.param) as made:
        made.map(abs, range(10))
        yield made


def slow_double(value: int) -> int:
    time.sleep(0.001)
    return 2 * value


def test_idle(pool: shoal.Pool) -> None:
    old, workers = agent_pid(pool), pool.worker_pids()
    kill_agent(pool)
    for pid in workers:  # they may still serve a map that comes before the kernel tells them
        wait_for(lambda: state_of(pid) in ("", "Z"), "the old workers' end")
    assert pool.map(abs, range(-9, 0)) == list(range(9, 0, -1))
    assert agent_pid(pool) != old
    check_strength(pool, WORKERS)


def test_in_the_midst_of_a_map(pool: shoal.Pool) -> None:
    found: list[Any] = []
    results = pool.imap(slow_double, range(600))
    for round in range(3):
        found += [next(results)]
        kill_agent(pool)
        wait_for(lambda: state_of(agent_pid(pool)) in ("", "Z"), "its end")
        while len(found) < 200 * (round + 1):
            try:
                found.append(next(results))
            except shoal.WorkerDied as error:
                assert error.signal == 9
                found.append(error)
    assert check_outcomes(found + outcomes(results), lambda index: 2 * index, 600) <= 3 * WORKERS
    check_strength(pool, WORKERS)


def test_while_several_threads_wait(pool: shoal.Pool) -> None:
    losses = []

    def work() -> None:
        found = outcomes(pool.imap(slow_double, range(300)))
        losses.append(check_outcomes(found, lambda index: 2 * index, 300))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        time.sleep(0.2)
        kill_agent(pool)
    for thread in threads:
        thread.join()
    assert len(losses) == 4 and sum(losses) <= 2 * WORKERS
    check_strength(pool, WORKERS)


def test_retries_outlive_it(pool: shoal.Pool) -> None:
    running = [pool.apply_async(slow_and_mine, (i,), retries=3) for i in range(WORKERS)]
    wait_for(lambda: any(seat["running"] for seat in pool._engine.client.seats()), "one runs")
    kill_agent(pool)
    assert [result.get(60) for result in running] == list(range(WORKERS))


def slow_and_mine(value: int) -> int:
    time.sleep(0.3)
    return value


def test_killed_then_closed() -> None:
    pool = shoal.Pool(WORKERS)
    results = [pool.apply_async(abs, (-i,)) for i in range(20)]
    kill_agent(pool)
    pool.close()
    pool.join()
    for index, result in enumerate(results):
        try:
            assert result.get() == index
        except shoal.WorkerDied:
            pass


def test_killed_then_terminated() -> None:
    pool = shoal.Pool(WORKERS)
    pool.apply(abs, (1,))
    workers = pool.worker_pids()
    kill_agent(pool)
    pool.terminate()
    pool.join()
    for pid in workers:
        wait_for(lambda: state_of(pid) in ("", "Z") or pid == os.getpid(), "the workers' end")
