# SPDX-License-Identifier: Apache-2.0
"""A worker dies at each stage of a task, in each way: only that task is lost, and the pool is whole
again.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import shoal
from killing import (
    check_outcomes,
    check_strength,
    kill_worker,
    outcomes,
    ready_workers,
    state_of,
    wait_for,
)

WORKERS = 2


def by_sigkill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def by_segfault() -> None:
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.kill(os.getpid(), signal.SIGSEGV)


def by_wild_pointer() -> None:
    faulthandler.disable()  # pytest's would print the stack of a death that is meant
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.string_at(8)


def by_exit() -> None:
    os._exit(7)


def by_exit_zero() -> None:
    os._exit(0)


def by_abort() -> None:
    faulthandler.disable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.abort()


ENDS: dict[Callable[[], None], tuple[int | None, int | None]] = {  # -> (signal, exitcode)
    by_sigkill: (signal.SIGKILL, None),
    by_segfault: (signal.SIGSEGV, None),
    by_wild_pointer: (signal.SIGSEGV, None),
    by_abort: (signal.SIGABRT, None),
    by_exit: (None, 7),
    by_exit_zero: (None, 0),
}


class DiesWhenDecoded:
    """Kills whoever rebuilds it."""

    def __init__(self, end: Callable[[], None]) -> None:
        self.end = end

    def __getstate__(self) -> Any:
        return self.end

    def __setstate__(self, end: Callable[[], None]) -> None:
        end()


class DiesWhenEncoded:
    """Kills the worker that sends it."""

    def __init__(self, end: Callable[[], None]) -> None:
        self.end = end

    def __reduce__(self) -> Any:
        self.end()
        raise AssertionError("still alive")


def run_and_die(item: tuple[int, Any]) -> int:
    index, end = item
    if end is not None:
        end()
    return index


def decode_and_die(item: tuple[int, Any]) -> int:
    return item[0]


def encode_and_die(item: tuple[int, Any]) -> Any:
    index, end = item
    return index if end is None else [index, DiesWhenEncoded(end)]


@pytest.fixture(scope="module")
def pool() -> Iterator[shoal.Pool]:
    with shoal.Pool(WORKERS) as made:
        yield made


STAGES = ("decoding", "running", "encoding")


@pytest.mark.parametrize("chunk", [1, 5])
@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
@pytest.mark.parametrize("stage", STAGES)
def test_only_the_task_that_killed_is_lost(
    pool: shoal.Pool, stage: str, end: Callable[[], None], chunk: int
) -> None:
    function = {"decoding": decode_and_die, "running": run_and_die, "encoding": encode_and_die}[
        stage
    ]
    if stage == "decoding" and chunk > 1:
        pytest.skip("a chunk is one pickle: it is lost item by item, each decoding again")
    victim = DiesWhenDecoded(end) if stage == "decoding" else end
    items = [(i, victim if i == 6 else None) for i in range(20)]
    found = outcomes(pool.imap(function, items, chunksize=chunk))
    assert check_outcomes(found, lambda index: index, 20) == 1
    error = found[6]
    assert (error.signal, error.exitcode) == ENDS[end]
    assert error.pid > 0 and error.pid != os.getpid()
    assert error.task is not None and error.task.endswith(function.__name__)
    assert error.arguments
    assert error.peak_memory is not None and 1 << 20 < error.peak_memory < 1 << 36
    assert str(error.pid) in str(error) and function.__name__ in str(error)
    check_strength(pool, WORKERS)


def test_a_killed_chunk_loses_item_by_item_when_it_cannot_be_decoded(pool: shoal.Pool) -> None:
    items = [(i, DiesWhenDecoded(by_sigkill) if i == 6 else None) for i in range(10)]
    found = outcomes(pool.imap(decode_and_die, items, chunksize=5))
    # 0 to 5 are plain values and travel on their own; 6 to 9 are what is left of the second chunk
    assert check_outcomes(found, lambda index: index, 10) == 4
    assert all(isinstance(value, shoal.WorkerDied) for value in found[6:])


def test_arguments_are_told(pool: shoal.Pool) -> None:
    with pytest.raises(shoal.WorkerDied) as caught:
        pool.apply(die_until, ("/dev/null", 10))
    assert caught.value.arguments is not None
    assert "/dev/null" in caught.value.arguments and "10" in caught.value.arguments


def array_or_die(item: Any) -> float:
    if item[0] == 1:
        by_sigkill()
    return float(item[1].sum())


def test_what_was_in_the_chunk_of_a_lost_task_still_runs(pool: shoal.Pool) -> None:
    """The arrays of the others had been taken out of the message already."""
    numpy = pytest.importorskip("numpy")
    items = [(i, numpy.full(50_000, float(i))) for i in range(6)]
    found = outcomes(pool.imap(array_or_die, items, chunksize=6))
    assert check_outcomes(found, lambda index: 50_000.0 * index, 6) == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGBUS], ids=str)
def test_idle_workers_are_replaced(pool: shoal.Pool, number: int) -> None:
    check_strength(pool, WORKERS)
    for pid in ready_workers(pool):
        assert kill_worker(pool, pid, number)
        wait_for(lambda: state_of(pid) in ("", "Z"), "its end")
    assert pool.map(abs, range(-20, 0), chunksize=1) == list(range(20, 0, -1))
    check_strength(pool, WORKERS)


def test_the_pool_is_whole_again_without_a_task(pool: shoal.Pool) -> None:
    check_strength(pool, WORKERS)
    old = set(ready_workers(pool))
    for pid in old:
        kill_worker(pool, pid)
    wait_for(lambda: len(set(pool.worker_pids()) - old) == WORKERS, "two fresh workers")


def sleep_then_name(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def test_all_workers_killed_at_once(pool: shoal.Pool) -> None:
    check_strength(pool, WORKERS)
    running = [pool.apply_async(sleep_then_name, (60,)) for _ in range(WORKERS)]
    waiting = [pool.apply_async(abs, (-i,)) for i in range(50)]
    wait_for(lambda: _running(pool) == WORKERS, "both run")
    for pid in pool.worker_pids():
        kill_worker(pool, pid)
    for result in running:
        with pytest.raises(shoal.WorkerDied):
            result.get(60)
    assert [result.get(60) for result in waiting] == list(range(50))
    check_strength(pool, WORKERS)


def _running(pool: shoal.Pool) -> int:
    return sum(seat["running"] for seat in pool._engine.client.seats())


# ---- Retries -------------------------------------------------------------------------------------


def die_until(path: str, times: int) -> int:
    """Dies the first `times` times."""
    with open(path, "a+") as file:
        file.write("x")
        file.flush()
        count = os.path.getsize(path)
    if count <= times:
        by_sigkill()
    return count


@pytest.mark.parametrize("times,retries", [(1, 1), (3, 3), (2, 30)])
def test_retried_until_it_lives(pool: shoal.Pool, tmp_path: Any, times: int, retries: int) -> None:
    path = str(tmp_path / "log")
    assert pool.apply(die_until, (path, times), retries=retries) == times + 1


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_retries_run_out(pool: shoal.Pool, tmp_path: Any, retries: int) -> None:
    path = str(tmp_path / "log")
    with pytest.raises(shoal.WorkerDied):
        pool.apply(die_until, (path, 99), retries=retries)
    assert os.path.getsize(path) == retries + 1


def die_once_with_array(path: str, array: Any) -> float:
    if not os.path.exists(path):
        open(path, "w").close()
        by_sigkill()
    return float(array.sum())


def test_a_retry_has_the_whole_arguments(pool: shoal.Pool, tmp_path: Any) -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(100_000.0)
    got = pool.apply(die_once_with_array, (str(tmp_path / "mark"), array), retries=1)
    assert got == array.sum()


# ---- Memory --------------------------------------------------------------------------------------


def take_memory(size: int) -> int:
    resource.setrlimit(resource.RLIMIT_AS, (_mapped() + (64 << 20), resource.RLIM_INFINITY))
    try:
        return len(bytearray(size))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def _mapped() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def test_a_memory_error_is_the_tasks_own(pool: shoal.Pool) -> None:
    with pytest.raises(MemoryError):
        pool.apply(take_memory, (1 << 30,))
    check_strength(pool, WORKERS)


def swell(size: int) -> None:
    block = bytearray(b"x") * size
    by_sigkill()
    del block


def test_peak_memory_is_told(pool: shoal.Pool) -> None:
    with pytest.raises(shoal.WorkerDied) as caught:
        pool.apply(swell, (200 << 20,))
    assert caught.value.peak_memory is not None
    assert 200 << 20 < caught.value.peak_memory < 400 << 20
    assert not caught.value.memory_limit_hit
