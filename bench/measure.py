# SPDX-License-Identifier: Apache-2.0
"""The parts of a benchmark: rows, samples, and the pools of both sides.

A *row* is one line of the table: a question with the same workload for every side. A *sample* is
one measurement of one side, taken in a fresh process (see run.py), so that no side uses memory that
another has warmed or left behind. Its value is a cost: smaller is better. Its check is a count or
checksum that must be the same for all sides and all rounds; otherwise the row has no result.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import multiprocessing.pool
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

STDLIB, SHOAL = "stdlib", "shoal"
WORKERS = 2


@dataclass(frozen=True)
class Scale:
    """How much work: `quick` is for CI, where a benchmark only has to run and give the right
    result.
    """

    quick: bool
    round_number: int = 0

    def pick(self, full: int, quick: int) -> int:
        return quick if self.quick else full


@dataclass
class Sample:
    """One measurement of one side."""

    value: float
    check: object
    details: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    `target`: the ratio standard library / shoal to reach. `limit`: for a row of shoal alone, the
    largest allowed value. `peers`: whether other packages can run it too.
    """

    name: str
    title: str
    unit: str
    measure: Callable[[str, Scale], Sample]
    target: float | None = None
    limit: float | None = None
    sides: tuple[str, ...] = (STDLIB, SHOAL)
    rounds: int = 5
    peers: bool = False


@contextmanager
def open_pool(side: str, processes: int = WORKERS) -> Iterator[Any]:
    """A pool of the side: fork for the standard library, shoal's default start for shoal."""
    if side == SHOAL:
        import shoal

        with shoal.Pool(processes) as pool:
            yield pool
    else:
        with multiprocessing.get_context("fork").Pool(processes) as pool:
            yield pool


@contextmanager
def open_executor(side: str, processes: int = WORKERS) -> Iterator[Any]:
    """An executor of the side, or of a rival that has the same interface."""
    if side == SHOAL:
        import shoal

        with shoal.Executor(processes) as executor:
            yield executor
    elif side == STDLIB:
        context = multiprocessing.get_context("fork")
        with concurrent.futures.ProcessPoolExecutor(processes, mp_context=context) as executor:
            yield executor
    else:
        from rivals import peers

        with peers.open_executor(side, processes) as executor:
            yield executor


def fork_context(side: str) -> Any:
    """The fork context of the standard library, or of shoal's drop-in namespace."""
    if side == STDLIB:
        return multiprocessing.get_context("fork")
    import shoal.multiprocessing

    return shoal.multiprocessing.get_context("fork")


def median_seconds(call: Callable[[], object], repeats: int, warm_up: int = 1) -> float:
    """Median time of a call after a few that are not counted."""
    return statistics.median(_seconds_of_each(call, repeats, warm_up))


def best_seconds(call: Callable[[], object], repeats: int, warm_up: int = 1) -> float:
    """Shortest time of a call: for long work, where all variation is added noise."""
    return min(_seconds_of_each(call, repeats, warm_up))


def _seconds_of_each(call: Callable[[], object], repeats: int, warm_up: int) -> list[float]:
    for _ in range(warm_up):
        call()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return times
