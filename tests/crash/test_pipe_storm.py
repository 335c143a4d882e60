# SPDX-License-Identifier: Apache-2.0
"""Senders and receivers of one pipe, killed at random: the totals must come out.

Each sender notes in shared memory what it is about to send, each receiver what it has received.
What cannot be accounted for afterwards is at most one object in the hand of each that was killed.
"""

from __future__ import annotations

import os
import random
import time
from typing import Any

import pytest
import shoal
import shoal.multiprocessing as smp

KILLS = 100
SENDERS = RECEIVERS = 3
MOST = 400_000  # numbers of one sender's place
FORK = smp.get_context("fork")


def send(connection: Any, begun: Any, place: int, first: int) -> None:
    for number in range(first, MOST):
        begun[place] = number + 1
        payload = bytes(number % 7 * 30_000 if number % 50 == 0 else number % 900)
        connection.send((place, number, payload))


def receive(connection: Any, seen: Any) -> None:
    while (got := connection.recv()) is not None:
        place, number, payload = got
        assert len(payload) == (number % 7 * 30_000 if number % 50 == 0 else number % 900)
        seen[place * MOST + number] += 1


@pytest.mark.parametrize("duplex", [False, True])
def test_random_kills_lose_only_what_the_dead_had_in_hand(duplex: bool) -> None:
    seed = int.from_bytes(os.urandom(4), "little")
    print("seed", seed)
    chance = random.Random(seed)
    reader, writer = shoal.Pipe(duplex)
    begun = FORK.RawArray("q", SENDERS)
    seen = FORK.RawArray("b", SENDERS * MOST)

    def start(place: int) -> Any:
        if place < SENDERS:
            process = FORK.Process(target=send, args=(writer, begun, place, begun[place]))
        else:
            process = FORK.Process(target=receive, args=(reader, seen))
        process.start()
        return process

    places = range(SENDERS + RECEIVERS)
    processes = [start(place) for place in places]
    for _ in range(KILLS):
        time.sleep(chance.random() * 0.02)
        victim = chance.choice(places)
        processes[victim].kill()
        processes[victim].join()
        processes[victim] = start(victim)
    for process in processes[:SENDERS]:
        process.kill()
        process.join()
    for _ in range(RECEIVERS):
        writer.send(None)
    for process in processes[SENDERS:]:
        process.join()
        assert process.exitcode == 0
    counts = [seen[p * MOST + n] for p in range(SENDERS) for n in range(begun[p])]
    assert set(counts) <= {0, 1}, "an object arrived twice"
    assert sum(begun) > 100
    assert counts.count(0) <= KILLS + SENDERS
    assert not reader.poll()
