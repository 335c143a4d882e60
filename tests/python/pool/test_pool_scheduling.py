# SPDX-License-Identifier: Apache-2.0
"""No unit waits beside an idle worker, whatever was run before and whoever the client is busy with.

Tasks sleep rather than compute, so that more of them than there are processors run at once, and say
when they began and ended (CLOCK_MONOTONIC, the same in all processes). Nobody fetches meanwhile.
"""

from __future__ import annotations

import heapq
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import shoal

TRIES = 8  # rounds that a busy machine may spoil


class Ran(NamedTuple):
    begin: float
    end: float


def rest(seconds: float) -> Ran:
    begin = time.monotonic()
    if seconds > 0:
        time.sleep(seconds)
    return Ran(begin, time.monotonic())


def rest_a(seconds: float) -> Ran:
    return rest(seconds)


def rest_b(seconds: float) -> Ran:
    return rest(seconds)


def rest_c(number: int, seconds: float) -> Ran:
    return rest(seconds)


def note(x: int) -> int:
    """Leaves a line in a file, which can be read without asking the pool for anything."""
    with open(os.environ["NOTES"], "a") as file:
        file.write(f"{x}\n")
    return x


def note_or_die(x: int) -> int:
    if x == 0:
        os._exit(7)
    return note(x)


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[int]]:
    path = tmp_path / "notes"
    path.touch()
    monkeypatch.setenv("NOTES", str(path))
    return lambda: [int(line) for line in path.read_text().split()]


def overlap(ran: list[Ran]) -> bool:
    return max(one.begin for one in ran) < min(one.end for one in ran)


# ---- What one batch holds ------------------------------------------------------------------------


def wait_for_file(path: str | None) -> bool:
    """Whether the file was made before a long time has passed. No path: at once."""
    end = time.monotonic() + 20
    while path is not None and not os.path.exists(path):
        if time.monotonic() > end:
            return False
        time.sleep(0.001)
    return True


@pytest.mark.parametrize("unordered", [False, True])
def test_results_do_not_wait_for_the_long_task_behind_them(tmp_path: Path, unordered) -> None:
    """The long task ends only when the program has fetched the results of those before it."""
    with shoal.Pool(1) as pool:
        pool.map(wait_for_file, [None] * 5000)  # so quick that many are sent together
        path = tmp_path / "fetched"
        inputs = [None] * 20 + [str(path)] + [None] * 20
        results = (pool.imap_unordered if unordered else pool.imap)(wait_for_file, inputs)
        assert all(next(results) for _ in range(20))
        path.touch()
        assert list(results) == [True] * 21
    pool.join()


@pytest.mark.parametrize("workers", [2, 3])
def test_long_tasks_after_many_quick_ones_of_another_function_run_at_once(workers) -> None:
    with shoal.Pool(workers) as pool:
        for _ in range(3):
            pool.map(abs, range(1000))
            result = pool.map_async(rest, [1.0] * workers)
            time.sleep(1.0)
            assert overlap(result.get())
            pool.map(abs, range(1000))
            assert overlap(pool.map(rest, [1.0] * workers))
    pool.join()


@pytest.mark.parametrize("workers", [2, 3])
def test_long_tasks_after_many_quick_ones_of_the_same_function_run_at_once(workers) -> None:
    with shoal.Pool(workers) as pool:
        for _ in range(3):
            pool.map(rest, [0.0] * 3000)
            time.sleep(0.01)  # all workers are asleep, or not yet
            result = pool.map_async(rest, [1.0] * workers)
            time.sleep(1.0)
            assert overlap(result.get())
    pool.join()


def test_quick_tasks_behind_a_long_one_do_not_wait_for_it() -> None:
    with shoal.Pool(2) as pool:
        for pause in (0.0, 0.01):
            pool.map(rest, [0.0] * 3000)
            time.sleep(pause)
            result = pool.map_async(rest, [1.0] + [0.0] * 30)
            time.sleep(1.0)
            long, *quick = result.get()
            assert max(one.end for one in quick) < long.end
    pool.join()


def test_a_long_chunk_is_not_waited_for_by_others() -> None:
    with shoal.Pool(2) as pool:
        pool.map(rest, [0.0] * 3000, 10)
        result = pool.map_async(rest, [1.0] + [0.0] * 29, 1)
        time.sleep(1.0)
        long, *quick = result.get()
        assert max(one.end for one in quick) < long.end
    pool.join()


# ---- A client that is busy with something else ---------------------------------------------------


def test_what_a_worker_leaves_when_it_is_replaced_does_not_wait_for_the_client(
    notes, wait_until
) -> None:
    with shoal.Pool(1, maxtasksperchild=3) as pool:
        pool.map(note, range(2000, 2003), 1)
        result = pool.map_async(note, range(60), 1)
        wait_until(lambda: len(notes()) == 63, "all to run, though nobody collects")
        assert notes()[3:] == list(range(60))
        assert result.get() == list(range(60))
    pool.join()


def test_what_a_dead_worker_had_not_begun_does_not_wait_for_the_client(notes, wait_until) -> None:
    with shoal.Pool(1) as pool:
        pool.map(note_or_die, [1] * 500)
        result = pool.map_async(note_or_die, range(60), 1)
        wait_until(lambda: len(notes()) == 559, "all to run, though nobody collects")
        assert notes()[500:] == list(range(1, 60))
        with pytest.raises(shoal.WorkerDied):
            result.get()
    pool.join()


# ---- Against list scheduling ---------------------------------------------------------------------


def makespan_by_list(lengths: list[float], workers: int) -> float:
    """Of the greedy schedule that begins tasks in this order."""
    free = [0.0] * workers
    for length in lengths:
        heapq.heappush(free, heapq.heappop(free) + length)
    return max(free)


def send_mixed(pool: Any, lengths: list[float], random_: random.Random) -> list[Any]:
    """Send tasks of these lengths, in this order, by all verbs; functions that return the results,
    to be called when all has ended.
    """
    fetchers = []
    at = 0
    while at < len(lengths):
        some = lengths[at : at + random_.choice((1, 2, 5, 13, 34))]
        at += len(some)
        verb = random_.randrange(6)
        if verb == 0:
            fetchers.append(pool.map_async(rest_a, some).get)
        elif verb == 1:
            fetchers.append(pool.map_async(rest_b, some, 1).get)
        elif verb == 2:
            fetchers.append(pool.starmap_async(rest_c, list(enumerate(some))).get)
        elif verb == 3:
            fetchers.append(lambda results=pool.imap(rest_a, some): list(results))
        elif verb == 4:
            fetchers.append(lambda results=pool.imap(rest_b, some): list(results))
        else:
            results = [pool.apply_async(rest_a, (seconds,)) for seconds in some]
            fetchers.append(lambda results=results: [result.get() for result in results])
    return fetchers


def makespan_ratio(pool: Any, workers: int, seed: int) -> float:
    """Of one round; 1 or less is as good as list scheduling, which gets 5% and 1 ms."""
    random_ = random.Random(seed)
    lengths = [10 ** random_.uniform(-6, -0.5) for _ in range(100)]
    pool.map(rest_a, [0.0] * 500)  # from which nothing follows for what comes
    pool.map(rest_b, [0.0] * 500)
    pool.starmap(rest_c, [(0, 0.0)] * 500)
    begin = time.monotonic()
    fetchers = send_mixed(pool, lengths, random_)
    time.sleep(makespan_by_list(lengths, workers) * 1.05)  # busy with something else
    ran = [Ran(*one) for fetch in fetchers for one in fetch()]
    taken = max(one.end for one in ran) - begin
    return taken / (1.05 * makespan_by_list([b - a for a, b in ran], workers) + 0.001)


@pytest.mark.parametrize("workers", [2, 3, 5])
@pytest.mark.parametrize("maker", ["native", "clean"])
def test_makespan_is_that_of_list_scheduling_issue_10(workers, maker) -> None:
    with shoal.Pool(workers, start="spawn" if maker == "clean" else "zygote") as pool:
        for seed in range(4):
            ratios: list[float] = []
            while not ratios or ratios[-1] > 1 and len(ratios) < TRIES:
                ratios.append(makespan_ratio(pool, workers, seed))
            assert ratios[-1] <= 1, f"seed {seed}: {ratios}"
    pool.join()
