# SPDX-License-Identifier: Apache-2.0
"""Random workers killed every few milliseconds: one outcome for every task, and nothing is left.

SHOAL_STORM_TASKS: the number of tasks (the promise is 1,000,000); SHOAL_STORM_SEED repeats a run.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from concurrent.futures import as_completed

import pytest
import shoal
from killing import (
    Storm,
    check_memory,
    check_outcomes,
    check_strength,
    kill_worker,
    memory_in_use,
    outcomes,
)
from storm import SPANS, square, text

TASKS = int(os.environ.get("SHOAL_STORM_TASKS", "50000"))
SEED = int(os.environ.get("SHOAL_STORM_SEED", "0")) or random.randrange(1, 1 << 30)


@pytest.fixture(autouse=True)
def told() -> None:
    print(f"SHOAL_STORM_SEED={SEED}")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("workers", [1, 4])
def test_every_task_has_one_outcome(workers: int) -> None:
    with shoal.Pool(workers) as pool:
        check_strength(pool, workers)
        before = memory_in_use() + SPANS
        with Storm(pool, 0.005, SEED) as storm:
            found = outcomes(pool.imap(square, range(TASKS)))
        lost = check_outcomes(found, square, TASKS)
        total = sum(value for value in found if not isinstance(value, Exception))
        missing = sum(square(i) for i, value in enumerate(found) if isinstance(value, Exception))
        assert total + missing == sum(map(square, range(TASKS)))
        print(f"{storm.kills} kills, {lost} of {TASKS} lost")
        assert lost <= storm.kills
        check_strength(pool, workers)
        del found
        check_memory(before)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [1, 16])
def test_with_retries_nothing_is_lost(chunk: int) -> None:
    with shoal.Pool(3) as pool, Storm(pool, 0.01, SEED):
        found = pool.map(text, range(5000), chunksize=chunk, retries=30)
    assert found == list(map(text, range(5000)))


def nap(value: int) -> int:
    time.sleep(0.0005)
    return value


@pytest.mark.slow
def test_unordered_results_come_once_each() -> None:
    with shoal.Pool(3) as pool:
        with Storm(pool, 0.01, SEED):
            found = outcomes(pool.imap_unordered(nap, range(2000), chunksize=8))
        values = [value for value in found if not isinstance(value, Exception)]
        assert len(found) == 2000 and len(set(values)) == len(values)
        check_strength(pool, 3)


@pytest.mark.slow
def test_futures_end_once_each() -> None:
    executor = shoal.Executor(3)
    ended: list[int] = []
    try:
        futures = {executor.submit(nap, i): i for i in range(1000)}
        for future in futures:
            future.add_done_callback(lambda f: ended.append(futures[f]))
        pool = executor  # has _engine and worker_pids, as a Pool has
        with Storm(pool, 0.01, SEED):
            for future in as_completed(futures):
                assert future.exception() is not None or future.result() == futures[future]
    finally:
        executor.shutdown()
    assert sorted(ended) == list(range(1000))


@pytest.mark.slow
def test_several_threads_share_a_pool_in_a_storm() -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(3):
                check_outcomes(outcomes(pool.imap(square, range(3000))), square, 3000)
        except BaseException as error:
            failures.append(error)

    with shoal.Pool(3) as pool:
        threads = [threading.Thread(target=work) for _ in range(4)]
        with Storm(pool, 0.01, SEED, agent_too=0.02):
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert not failures, failures
        check_strength(pool, 3)


@pytest.mark.slow
@pytest.mark.parametrize("end", ["close", "terminate"])
def test_a_storm_while_the_pool_ends(end: str) -> None:
    choice = random.Random(SEED)
    for round in range(5):
        pool = shoal.Pool(3)
        results = [pool.apply_async(nap, (i,)) for i in range(100)]
        if choice.random() < 0.5:
            results[0].wait()
        storm = Storm(pool, 0.002, SEED + round, agent_too=0.02)
        with storm:
            getattr(pool, end)()
            pool.join()
        for index, result in enumerate(results):
            try:
                assert result.get(60) == index
            except (shoal.WorkerDied, shoal.PoolClosed):
                pass


def slow_start(path: str) -> None:
    time.sleep(0.02)


@pytest.mark.slow
def test_killed_during_the_initializer() -> None:
    """Starts killed from outside are no failures of the initializer, as long as some succeed."""
    with shoal.Pool(2, slow_start, ("",)) as pool:
        for _ in range(10):
            for pid in pool.worker_pids():
                kill_worker(pool, pid, signal.SIGKILL)
            time.sleep(0.01)
        assert pool.map(abs, range(-20, 0), chunksize=1) == list(range(20, 0, -1))
        check_strength(pool, 2)


def crash_at_start() -> None:
    os._exit(3)


def test_an_initializer_that_always_crashes_gives_one_error() -> None:
    with shoal.Pool(2, crash_at_start) as pool:
        with pytest.raises(shoal.InitializerFailed):
            pool.map(abs, range(10))
        with pytest.raises(shoal.InitializerFailed):
            pool.apply(abs, (1,))
