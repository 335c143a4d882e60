# SPDX-License-Identifier: Apache-2.0
"""What does it cost to get an object through a pipe to another process?

The drop-in's `Pipe` against the standard library's, both made by a fork context, with the same
code; one child process, and the parent measures.

Unfair would be: to time the start of the process (the clock starts when the first object has
arrived); to send by the parent, whose last objects may not have arrived when the clock stops (it
receives); to compare with a pipe that goes one way only, which both sides have faster.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from typing import Any

from measure import STDLIB, Row, Sample, Scale, median_seconds


def _context(side: str) -> Any:
    if side == STDLIB:
        return multiprocessing.get_context("fork")
    import shoal.multiprocessing

    return shoal.multiprocessing.get_context("fork")


def _echo(connection: Any) -> None:
    while (number := connection.recv()) is not None:
        connection.send(number + 1)


def ping_pong(side: str, scale: Scale) -> Sample:
    context = _context(side)
    here, there = context.Pipe()
    process = context.Process(target=_echo, args=(there,))
    process.start()
    got = []

    def ask() -> None:
        here.send(len(got))
        got.append(here.recv())

    for _ in range(50):
        ask()
    seconds = median_seconds(ask, scale.pick(5_000, 50))
    here.send(None)
    process.join()
    return Sample(seconds * 1e6, sum(got))


def _produce(connection: Any, count: int, make: Callable[[int], Any]) -> None:
    for number in range(count):
        connection.send(make(number))


def _stream(
    side: str, count: int, make: Callable[[int], Any], weigh: Callable[[Any], int]
) -> Sample:
    context = _context(side)
    here, there = context.Pipe()
    producer = context.Process(target=_produce, args=(there, count, make))
    producer.start()
    total = weigh(here.recv())
    started = time.perf_counter()
    for _ in range(count - 1):
        total += weigh(here.recv())
    seconds = time.perf_counter() - started
    producer.join()
    return Sample(seconds / (count - 1) * 1e6, total)


def small(side: str, scale: Scale) -> Sample:
    return _stream(side, scale.pick(100_000, 1_000), int, int)


def arrays(side: str, scale: Scale) -> Sample:
    import numpy

    array = numpy.arange(131_072, dtype=float)
    return _stream(side, scale.pick(500, 10), lambda _: array, lambda got: int(got[-1]) + len(got))


ROWS = [
    Row("pipe-ping-pong", "`Pipe` ping-pong with small ints, round trip", "us", ping_pong,
        target=2),
    Row("pipe-small", "`Pipe`, one sends, one receives, small ints, per object", "us", small,
        target=2),
    Row("pipe-arrays", "the same, arrays of 1 MB", "us", arrays, target=5),
]  # fmt: skip
