# SPDX-License-Identifier: Apache-2.0
"""Producers and consumers of queues, killed at random: the totals must come out.

Each producer notes in shared memory what it is about to put, each consumer what it has got. What
cannot be accounted for afterwards is at most one object in the hand of each that was killed.
"""

from __future__ import annotations

import os
import random
import time
from typing import Any

import pytest
import shoal
import shoal.multiprocessing as smp

KILLS = 60
PRODUCERS = CONSUMERS = 3
MOST = 400_000  # numbers of one producer's place
FORK = smp.get_context("fork")


def produce(queue: Any, begun: Any, place: int, first: int) -> None:
    for number in range(first, MOST):
        begun[place] = number + 1
        payload = bytes(number % 7 * 30_000) if number % 50 == 0 else None
        queue.put((place, number, payload))


def consume(queue: Any, seen: Any) -> None:
    while (got := queue.get()) is not None:
        place, number, payload = got
        assert payload is None or len(payload) == number % 7 * 30_000
        seen[place * MOST + number] += 1
        queue.task_done()


@pytest.mark.parametrize("maxsize", [0, 20])
def test_random_kills_lose_only_what_the_dead_had_in_hand(maxsize: int) -> None:
    seed = int.from_bytes(os.urandom(4), "little")
    print("seed", seed)
    chance = random.Random(seed)
    queue = FORK.JoinableQueue(maxsize)
    begun = FORK.RawArray("q", PRODUCERS)
    seen = FORK.RawArray("b", PRODUCERS * MOST)

    def start(place: int) -> Any:
        if place < PRODUCERS:
            process = FORK.Process(target=produce, args=(queue, begun, place, begun[place]))
        else:
            process = FORK.Process(target=consume, args=(queue, seen))
        process.start()
        return process

    places = range(PRODUCERS + CONSUMERS)
    processes = [start(place) for place in places]
    for _ in range(KILLS):
        time.sleep(chance.random() * 0.02)
        victim = chance.choice(places)
        processes[victim].kill()
        processes[victim].join()
        processes[victim] = start(victim)
    for process in processes[:PRODUCERS]:
        process.kill()
        process.join()
    for _ in range(CONSUMERS):
        queue.put(None)
    for process in processes[PRODUCERS:]:
        process.join()
        assert process.exitcode == 0
    counts = [seen[p * MOST + n] for p in range(PRODUCERS) for n in range(begun[p])]
    assert set(counts) <= {0, 1}, "an object arrived twice"
    assert sum(begun) > 100
    assert counts.count(0) <= KILLS + PRODUCERS
    assert queue.qsize() == 0
    assert queue.statistics()["unfinished"] <= KILLS + PRODUCERS + CONSUMERS


def test_a_producer_killed_in_a_put_poisons_nobody() -> None:
    """PAINS A3 in small: whoever dies, wherever, the others' channel goes on."""
    queue = shoal.Queue[Any]()

    def put_for_ever() -> None:
        while True:
            queue.put(b"x" * 2_000)

    for _ in range(30):
        process = FORK.Process(target=put_for_ever)
        process.start()
        while queue.qsize() < 20:
            time.sleep(0.001)
        process.kill()
        process.join()
        while not queue.empty():
            assert queue.get() == b"x" * 2_000
    queue.put("works")
    assert queue.get() == "works"
