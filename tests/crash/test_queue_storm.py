# SPDX-License-Identifier: Apache-2.0
"""Producers and consumers of queues, killed at random: the totals must come out."""

from __future__ import annotations

import time
from typing import Any

import pytest
import shoal
import shoal.multiprocessing as smp
from message_storm import GETTERS, PUTTERS, storm

KILLS = 60
FORK = smp.get_context("fork")


def payload(number: int) -> bytes | None:
    return bytes(number % 7 * 30_000) if number % 50 == 0 else None


@pytest.mark.parametrize("maxsize", [0, 20])
def test_random_kills_lose_only_what_the_dead_had_in_hand(maxsize: int) -> None:
    queue = FORK.JoinableQueue(maxsize)
    storm(queue.put, queue.get, payload, KILLS, queue.task_done)
    assert queue.qsize() == 0
    assert queue.statistics()["unfinished"] <= KILLS + PUTTERS + GETTERS


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
