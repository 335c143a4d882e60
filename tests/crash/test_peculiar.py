# SPDX-License-Identifier: Apache-2.0
"""Workers that are stopped, that close what they were given, that become another program."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest
import shoal
from killing import agent_pid, check_strength, kill_worker, ready_workers, state_of, wait_for


@pytest.fixture
def pool() -> Iterator[shoal.Pool]:
    with shoal.Pool(2) as made:
        check_strength(made, 2)
        yield made


def nap(value: int) -> int:
    time.sleep(0.002)
    return value


@pytest.mark.parametrize("busy", [False, True])
def test_a_stopped_worker_holds_nobody_up(pool: shoal.Pool, busy: bool) -> None:
    results = pool.map_async(nap, range(200), chunksize=1) if busy else None
    stopped = ready_workers(pool)[0]
    assert kill_worker(pool, stopped, signal.SIGSTOP)
    wait_for(lambda: state_of(stopped) == "T", "the stop")
    try:
        for i in range(5):
            assert pool.apply_async(abs, (-i,)).get(60) == i
        assert pool.map(nap, range(50), chunksize=1) == list(range(50))
    finally:
        kill_worker(pool, stopped, signal.SIGCONT)
    if results is not None:
        assert results.get(60) == list(range(200))
    check_strength(pool, 2)


def test_each_worker_stopped_in_turn(pool: shoal.Pool) -> None:
    for _ in range(4):
        for pid in ready_workers(pool):
            kill_worker(pool, pid, signal.SIGSTOP)
            assert pool.apply_async(nap, (1,)).get(60) == 1
            kill_worker(pool, pid, signal.SIGCONT)
    check_strength(pool, 2)


def test_a_pool_with_stopped_workers_terminates(pool: shoal.Pool) -> None:
    for pid in ready_workers(pool):
        kill_worker(pool, pid, signal.SIGSTOP)
    pool.terminate()
    pool.join()


def sleep_for(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def test_a_long_task_holds_nobody_up(pool: shoal.Pool) -> None:
    """Tasks in the same batch as a long one go to the other worker."""
    results = pool.imap_unordered(sleep_for, [5.0] + [0.0] * 60)
    assert list(results) == [0.0] * 60 + [5.0]


def close_everything(value: int) -> int:
    os.closerange(0, 256)
    return value


def open_files(folder: str) -> list[str]:
    """Takes the numbers of the descriptors that were closed."""
    found = []
    for i in range(40):
        path = os.path.join(folder, f"{os.getpid()}_{i}")
        fd = os.open(path, os.O_CREAT | os.O_RDWR)
        os.write(fd, b"mine")
        found.append(path)
    return found


def allocate(size: int) -> bytes:
    return bytes(size)


def test_a_worker_that_closes_all_descriptors(pool: shoal.Pool, tmp_path: object) -> None:
    assert pool.map(close_everything, range(10), chunksize=1) == list(range(10))
    paths = [path for _ in range(4) for path in pool.apply(open_files, (str(tmp_path),))]
    for size in (10, 1 << 20, 80 << 20):  # the arena grows through its mapping
        assert len(pool.apply(allocate, (size,))) == size
    assert pool.map(abs, [-1, -2]) == [1, 2]
    for path in paths:
        with open(path, "rb") as file:
            assert file.read() == b"mine"
    check_strength(pool, 2)


def become(program: str) -> None:
    os.execv(program, [program])


def test_a_worker_that_becomes_another_program(pool: shoal.Pool) -> None:
    results = [pool.apply_async(nap, (i,)) for i in range(20)]
    with pytest.raises(shoal.WorkerDied) as caught:
        pool.apply(become, ("/bin/false",))
    assert caught.value.exitcode == 1
    assert [result.get(60) for result in results] == list(range(20))
    check_strength(pool, 2)


def leave_group(value: int) -> int:
    os.setsid()
    return value


def test_a_worker_in_a_session_of_its_own(pool: shoal.Pool) -> None:
    assert pool.apply(leave_group, (1,)) == 1
    check_strength(pool, 2)


def test_a_stopped_agent(pool: shoal.Pool) -> None:
    """Tasks go on; the dead are replaced when it goes on."""
    agent = agent_pid(pool)
    os.kill(agent, signal.SIGSTOP)
    try:
        assert pool.map(abs, range(-50, 0), chunksize=1) == list(range(50, 0, -1))
        kill_worker(pool, ready_workers(pool)[0])
        assert pool.map(abs, range(-50, 0), chunksize=1) == list(range(50, 0, -1))
    finally:
        os.kill(agent, signal.SIGCONT)
    check_strength(pool, 2)


def ignore_everything(seconds: float) -> None:
    for number in range(1, 65):
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError):
            pass
    while True:
        time.sleep(seconds)


def test_a_task_that_ignores_all_signals_is_stopped_in_the_end(pool: shoal.Pool) -> None:
    with pytest.raises(TimeoutError):
        pool.apply(ignore_everything, (0.1,), timeout=0.2)
    check_strength(pool, 2)
    pool.apply_async(ignore_everything, (0.1,))
    time.sleep(0.1)
    pool.terminate()
    pool.join()
