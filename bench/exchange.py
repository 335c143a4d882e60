# SPDX-License-Identifier: Apache-2.0
"""Exchanges objects between this process and one child, given a function to put and one to get."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from measure import Sample, Scale, median_seconds


def _put_all(put: Callable[[Any], object], count: int, make: Callable[[int], Any]) -> None:
    for number in range(count):
        put(make(number))


def one_way(
    context: Any,
    put: Callable[[Any], object],
    get: Callable[[], Any],
    count: int,
    make: Callable[[int], Any],
    weigh: Callable[[Any], int],
) -> Sample:
    """Microseconds for each of `count` objects that a child puts and this process gets; checked by
    the sum of their weights.
    """
    producer = context.Process(target=_put_all, args=(put, count, make))
    producer.start()
    total = weigh(get())
    started = time.perf_counter()
    for _ in range(count - 1):
        total += weigh(get())
    seconds = time.perf_counter() - started
    producer.join()
    return Sample(seconds / (count - 1) * 1e6, total)


def _answer_all(get: Callable[[], Any], put: Callable[[Any], object]) -> None:
    while (number := get()) is not None:
        put(number + 1)


def ping_pong(
    context: Any,
    here: tuple[Callable[[Any], object], Callable[[], Any]],
    there: tuple[Callable[[Any], object], Callable[[], Any]],
    scale: Scale,
) -> Sample:
    """Microseconds until a child has answered; `here` and `there` are each side's put and get."""
    put, get = here
    child = context.Process(target=_answer_all, args=there[::-1])
    child.start()
    got = []

    def ask() -> None:
        put(len(got))
        got.append(get())

    for _ in range(50):
        ask()
    seconds = median_seconds(ask, scale.pick(5_000, 50))
    put(None)
    child.join()
    return Sample(seconds * 1e6, sum(got))


def megabyte_arrays() -> tuple[Callable[[int], Any], Callable[[Any], int]]:
    """Arrays of 1 MB, and the weight of an array."""
    import numpy

    array = numpy.arange(131_072, dtype=float)
    return lambda _: array, lambda got: int(got[-1]) + len(got)
