# SPDX-License-Identifier: Apache-2.0
"""What does it cost to get an object through a queue to another process?

The drop-in's queues against the standard library's, both made by a fork context, with the same
code. There is one producer process; the measuring process is the consumer. Every object that
arrives is counted or summed.

Unfair would be: to time the start of the processes (the clock starts when the first object has
arrived); to let one side's producer run ahead before the clock starts (the first object comes
through the same queue); to use a batch interface that only one side has (none is used); to compare
the book's primes with a slow serial program (it is the same check, in one process, without a
queue).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from exchange import megabyte_arrays, one_way
from exchange import ping_pong as measure_answers
from measure import SHOAL, Row, Sample, Scale, fork_context
from tasks import is_prime

FIRST_PRIME = 100_000_000


def _stream(
    side: str, count: int, make: Callable[[int], Any], weigh: Callable[[Any], int]
) -> Sample:
    context = fork_context(side)
    queue = context.Queue()
    return one_way(context, queue.put, queue.get, count, make, weigh)


def small_ints(side: str, scale: Scale) -> Sample:
    return _stream(side, scale.pick(100_000, 1_000), int, int)


def kilobytes(side: str, scale: Scale) -> Sample:
    payload = b"x" * 1024
    return _stream(side, scale.pick(50_000, 500), lambda _: payload, len)


def megabytes(side: str, scale: Scale) -> Sample:
    return _stream(side, scale.pick(500, 10), *megabyte_arrays())


def ping_pong(side: str, scale: Scale) -> Sample:
    context = fork_context(side)
    to, back = context.Queue(), context.Queue()
    return measure_answers(context, (to.put, back.get), (back.put, to.get), scale)


def _find_primes(numbers: Any, primes: Any) -> None:
    while (number := numbers.get()) is not None:
        if is_prime(number):
            primes.put(number)
    primes.put(None)


def primes_by_queues(side: str, scale: Scale) -> Sample:
    """The book's program: numbers go in through one queue, primes come out of another. stdlib: no
    queue, one process.
    """
    candidates = range(FIRST_PRIME, FIRST_PRIME + scale.pick(200_000, 2_000))
    started = time.perf_counter()
    if side != SHOAL:
        found = sum(is_prime(number) for number in candidates)
        return Sample(time.perf_counter() - started, found)
    context = fork_context(side)
    numbers, primes = context.Queue(), context.Queue()
    workers = [context.Process(target=_find_primes, args=(numbers, primes)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for number in candidates:
        numbers.put(number)
    for _ in workers:
        numbers.put(None)
    found, ended = 0, 0
    while ended < len(workers):
        if primes.get() is None:
            ended += 1
        else:
            found += 1
    for worker in workers:
        worker.join()
    return Sample(time.perf_counter() - started, found)


ROWS = [
    Row("queue-ints", "`Queue`, one producer, one consumer, small ints, per object", "us",
        small_ints, target=8),
    Row("queue-1kb", "the same, 1 KB of bytes", "us", kilobytes, target=5),
    Row("queue-1mb", "the same, arrays of 1 MB", "us", megabytes, target=10),
    Row("queue-ping-pong", "`Queue` ping-pong, round trip", "us", ping_pong, target=6),
    Row("queue-primes", "primes through two Queues, 2 workers, against one process without", "s",
        primes_by_queues, target=1, rounds=3),
]  # fmt: skip
