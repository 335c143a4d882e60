# SPDX-License-Identifier: Apache-2.0
"""Processes that put numbered objects and processes that get them, killed at random.

Each that puts notes in shared memory what it is about to put, each that gets what it has got. What
cannot be accounted for afterwards is at most one object in the hand of each that was killed.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import Any

import shoal.multiprocessing as smp

PUTTERS = GETTERS = 3
MOST = 400_000  # numbers of one putter's place
FORK = smp.get_context("fork")


def _put_all(put: Callable[[Any], object], make: Any, begun: Any, place: int, first: int) -> None:
    for number in range(first, MOST):
        begun[place] = number + 1
        put((place, number, make(number)))


def _get_all(get: Callable[[], Any], make: Any, done: Callable[[], object], seen: Any) -> None:
    while (got := get()) is not None:
        place, number, payload = got
        assert payload == make(number)
        seen[place * MOST + number] += 1
        done()


def storm(
    put: Callable[[Any], object],
    get: Callable[[], Any],
    make: Callable[[int], Any],
    kills: int,
    done: Callable[[], object] = lambda: None,
) -> None:
    """Kill that often, let the rest end, and check that nothing came twice and little is missing.
    `make(number)` is the payload; `done` is called after each object that was got.
    """
    seed = int.from_bytes(os.urandom(4), "little")
    print("seed", seed)
    chance = random.Random(seed)
    begun = FORK.RawArray("q", PUTTERS)
    seen = FORK.RawArray("b", PUTTERS * MOST)

    def start(place: int) -> Any:
        if place < PUTTERS:
            process = FORK.Process(target=_put_all, args=(put, make, begun, place, begun[place]))
        else:
            process = FORK.Process(target=_get_all, args=(get, make, done, seen))
        process.start()
        return process

    places = range(PUTTERS + GETTERS)
    processes = [start(place) for place in places]
    for _ in range(kills):
        time.sleep(chance.random() * 0.02)
        victim = chance.choice(places)
        processes[victim].kill()
        processes[victim].join()
        processes[victim] = start(victim)
    for process in processes[:PUTTERS]:
        process.kill()
        process.join()
    for _ in range(GETTERS):
        put(None)
    for process in processes[PUTTERS:]:
        process.join()
        assert process.exitcode == 0
    counts = [seen[p * MOST + n] for p in range(PUTTERS) for n in range(begun[p])]
    assert set(counts) <= {0, 1}, "an object arrived twice"
    assert sum(begun) > 100
    assert counts.count(0) <= kills + PUTTERS
