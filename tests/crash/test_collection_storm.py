# SPDX-License-Identifier: Apache-2.0
"""Processes that change shared containers, killed at random: the totals must come out."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from typing import Any

import shoal
import shoal.multiprocessing as smp
from shoal._runtime._native import core

KILLS = 60
WORKERS = 4
MOST = 300_000
FORK = smp.get_context("fork")


def _storm(work: Any, *arguments: Any) -> None:
    """Keep WORKERS processes at `work(place, *arguments)`, and kill one of them that often."""
    seed = int.from_bytes(os.urandom(4), "little")
    print("seed", seed)
    chance = random.Random(seed)

    def start(place: int) -> Any:
        process = FORK.Process(target=work, args=(place, *arguments))
        process.start()
        return process

    processes = [start(place) for place in range(WORKERS)]
    for _ in range(KILLS):
        time.sleep(chance.random() * 0.02)
        victim = chance.randrange(WORKERS)
        processes[victim].kill()
        processes[victim].join()
        processes[victim] = start(victim)
    for process in processes:
        process.kill()
        process.join()
    core.reap()


def _pass_on(place: int, work: Any, done: Any, taken: Any) -> None:
    """Takes numbers from one list and puts them into another, and notes each before."""
    while True:
        try:
            number = work.pop(0)
        except IndexError:
            time.sleep(0.001)
            continue
        taken[place] = number
        done.append(number)
        work.append(number + 1_000)


def test_numbers_that_are_passed_on_are_not_lost_or_doubled() -> None:
    """One number circulates for each of 200 places; a death loses the one in the hand at most."""
    work, done = shoal.List(range(200)), shoal.List[int]()
    taken = FORK.RawArray("q", WORKERS)
    _storm(_pass_on, work, done, taken)
    lost = 200 - len(list(work))
    assert 0 <= lost <= KILLS + WORKERS
    rounds = Counter(number % 1_000 for number in done)
    assert len(done) > 200 and sum(rounds.values()) == len(done)
    assert len(set(done)) == len(done), "a number was passed on twice"
    for number in work:  # what is there has been passed on as often as it says
        assert rounds[number % 1_000] == number // 1_000
    assert len(set(work)) == len(work)


def _fill(place: int, table: Any, begun: Any) -> None:
    for number in range(begun[place], MOST):
        begun[place] = number + 1
        table[place, number] = [number, "x" * (number % 100)]
        if number % 7 == 0:
            table.pop((place, number - 7), None)


def test_what_was_put_under_a_key_is_there_whoever_dies() -> None:
    table = shoal.Dict[Any, Any]()
    begun = FORK.RawArray("q", WORKERS)
    _storm(_fill, table, begun)
    entries = table.copy()
    assert len(entries) == len(table) and sum(begun) > 1_000
    missing = 0
    for place in range(WORKERS):
        for number in range(begun[place]):
            value = entries.pop((place, number), None)
            if value is not None:
                assert value == [number, "x" * (number % 100)]
            elif number % 7 != 0:
                missing += 1
    assert not entries and missing <= KILLS + WORKERS
    for key in list(table):
        del table[key]
    assert len(table) == 0


def _nest(place: int, outer: Any) -> None:
    number = 0
    while True:
        key = random.randrange(20)
        outer[key] = shoal.List([place, number])
        found = outer.get(random.randrange(20))
        if found is not None:
            found.append(number)
            assert len(found) >= 3
        number += 1


def test_nested_containers_live_as_long_as_somebody_has_them() -> None:
    core.reap()
    before = core.arena_statistics()["blocks_shared"]
    outer = shoal.Dict[int, Any]()
    _storm(_nest, outer)
    for inner in outer.values():
        assert len(inner) >= 2
        inner.append("works")
    outer.clear()
    del inner
    core.reap()
    assert core.arena_statistics()["blocks_shared"] == before + 1  # `outer`


def _meet(place: int, seen: Any, total: Any) -> None:
    number = 0
    while True:
        if seen.discard((place + number) % 50):
            total.add(1)
        seen.add((place + number) % 50)
        number += 1


def test_a_set_of_fifty_stays_one() -> None:
    seen, total = shoal.Set(range(50)), shoal.Atomic(0)
    _storm(_meet, seen, total)
    # In this order: the first look repairs what the last death left, which len() does not.
    assert len(set(seen)) == len(seen) <= 50
    assert len(seen) >= 50 - KILLS - WORKERS and all(0 <= value < 50 for value in seen)
