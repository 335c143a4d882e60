# SPDX-License-Identifier: Apache-2.0
"""What does it cost to get one task to a worker and its result back?

Tasks do nothing, so all that is measured is the pool. Two workers on both sides.

Unfair would be: to time the start of the pool (every call is made once before the clock starts); to
send a function that one side must pickle by value (it is in a module); to give one side larger
chunks (where the table says chunksize 1, both have 1; where it says default, each has its own
default); to keep the results of one side and drop those of the other (all are kept and summed).
"""

from __future__ import annotations

import time

from measure import Row, Sample, Scale, median_seconds, open_executor, open_pool
from tasks import noop, nothing


def apply_round_trip(side: str, scale: Scale) -> Sample:
    calls = scale.pick(2_000, 50)
    with open_pool(side) as pool:
        done = [pool.apply(noop, (number,)) for number in range(20)]
        seconds = median_seconds(lambda: done.append(pool.apply(noop, (1,))), calls)
    return Sample(seconds * 1e6, sum(done))


def submit_round_trip(side: str, scale: Scale) -> Sample:
    calls = scale.pick(2_000, 50)
    with open_executor(side) as executor:
        done = [executor.submit(noop, number).result() for number in range(20)]
        seconds = median_seconds(lambda: done.append(executor.submit(noop, 1).result()), calls)
    return Sample(seconds * 1e6, sum(done))


def map_one_by_one(side: str, scale: Scale) -> Sample:
    count = scale.pick(50_000, 500)
    with open_pool(side) as pool:
        pool.map(noop, range(100), chunksize=1)
        started = time.perf_counter()
        results = pool.map(noop, range(count), chunksize=1)
        seconds = time.perf_counter() - started
    return Sample(seconds / count * 1e6, sum(results))


def imap(side: str, scale: Scale) -> Sample:
    count = scale.pick(50_000, 500)
    with open_pool(side) as pool:
        list(pool.imap(noop, range(100)))
        started = time.perf_counter()
        results = list(pool.imap(noop, range(count)))
        seconds = time.perf_counter() - started
    return Sample(seconds / count * 1e6, sum(results))


def executor_map(side: str, scale: Scale) -> Sample:
    count = scale.pick(20_000, 200)
    with open_executor(side) as executor:
        list(executor.map(noop, range(100)))
        started = time.perf_counter()
        results = list(executor.map(noop, range(count)))
        seconds = time.perf_counter() - started
    return Sample(seconds / count * 1e6, sum(results))


def map_default(side: str, scale: Scale) -> Sample:
    count = scale.pick(1_000_000, 5_000)
    with open_pool(side) as pool:
        pool.map(noop, range(count // 10))
        started = time.perf_counter()
        results = pool.map(noop, range(count))
        seconds = time.perf_counter() - started
    return Sample(seconds / count * 1e6, sum(results))


def apply_nothing(side: str, scale: Scale) -> Sample:
    """The lower bound: a call without argument and result."""
    calls = scale.pick(2_000, 50)
    with open_pool(side) as pool:
        seconds = median_seconds(lambda: pool.apply(nothing), calls, warm_up=20)
    return Sample(seconds * 1e6, calls)


ROWS = [
    Row("apply", "`Pool.apply` of a no-op, round trip", "us", apply_round_trip, target=12),
    Row("submit", "`Executor.submit(f).result()`", "us", submit_round_trip, target=12, peers=True),
    Row("map-1", "`Pool.map(noop, range(50_000), chunksize=1)`, per task", "us", map_one_by_one,
        target=15),
    Row("imap", "`Pool.imap(noop, range(50_000))`, per task", "us", imap, target=15),
    Row("executor-map", "`Executor.map(noop, range(20_000))`, per task", "us", executor_map,
        target=40, peers=True),
    Row("map-default", "`Pool.map(noop, range(1_000_000))`, default chunks, per task", "us",
        map_default, target=1.5),
    Row("apply-nothing", "`Pool.apply` without argument and result", "us", apply_nothing),
]  # fmt: skip
