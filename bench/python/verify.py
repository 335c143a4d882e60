# SPDX-License-Identifier: Apache-2.0
"""What does a shared flag cost that lets all workers stop as soon as one has found the answer?

This follows the prime verification of *High Performance Python* (3rd edition, chapter 9): the
possible factors of one number are split among the workers, and each worker checks a flag every
1,000 steps. The standard library's side uses the book's fastest flag, one byte of an anonymous
`mmap`, which workers of a forked pool inherit; shoal's uses `shoal.Flag`, an argument of the task.

Unfair would be: to check the flag less often on one side; to count the start of the pool (both are
warm). The row without early exit compares shoal with a flag to the standard library without one.
"""

from __future__ import annotations

import math
import mmap
import multiprocessing
from typing import Any

from measure import SHOAL, WORKERS, Row, Sample, Scale, best_seconds

PRIME = 1_600_000_000_000_007
COMPOSITE = 22_000_001 * 70_000_027  # the factor is early in the second worker's share
SMALL_PRIME, SMALL_COMPOSITE = 1_000_000_007, 22_003 * 70_001
EVERY = 1_000

byte = mmap.mmap(-1, 1)  # inherited by the workers of a forked pool


def find_factor(number: int, begin: int, end: int) -> int:
    """The least odd factor of `number` in [begin, end), 0 if there is none."""
    for factor in range(begin, end, 2):
        if number % factor == 0:
            return factor
    return 0


def find_factor_by_byte(number: int, begin: int, end: int) -> int:
    for block in range(begin, end, 2 * EVERY):
        if byte[0]:
            return 0
        factor = find_factor(number, block, min(block + 2 * EVERY, end))
        if factor:
            byte[0] = 1
            return factor
    return 0


def find_factor_by_flag(number: int, begin: int, end: int, flag: Any) -> int:
    for block in range(begin, end, 2 * EVERY):
        if flag.is_set():
            return 0
        factor = find_factor(number, block, min(block + 2 * EVERY, end))
        if factor:
            flag.set()
            return factor
    return 0


def _shares(number: int) -> list[tuple[int, int, int]]:
    end = math.isqrt(number) + 1
    middle = end // WORKERS // 2 * 2 + 1
    return [(number, 3, middle), (number, middle, end)]


def _verify(side: str, number: int, flagged: bool) -> Sample:
    found = set()
    shares = _shares(number)
    if side == SHOAL:
        import shoal

        flag = shoal.Flag()

        def call() -> None:
            flag.clear()
            tasks = [(*share, flag) for share in shares]
            found.add(max(pool.starmap(find_factor_by_flag, tasks, 1)))

        with shoal.Pool(WORKERS) as pool:
            seconds = best_seconds(call, 5)
    else:
        function = find_factor_by_byte if flagged else find_factor

        def call() -> None:
            byte[0] = 0
            found.add(max(pool.starmap(function, shares, 1)))

        with multiprocessing.get_context("fork").Pool(WORKERS) as pool:
            seconds = best_seconds(call, 5)
    return Sample(seconds * 1e3, sorted(found))


def early_exit(side: str, scale: Scale) -> Sample:
    return _verify(side, SMALL_COMPOSITE if scale.quick else COMPOSITE, True)


def no_loss(side: str, scale: Scale) -> Sample:
    return _verify(side, SMALL_PRIME if scale.quick else PRIME, False)


ROWS = [
    Row("verify-composite", "a factor found by 2 workers, early exit by a flag: `mmap`, "
        "`shoal.Flag`", "ms", early_exit, target=1, rounds=3),
    Row("verify-prime", "a prime verified by 2 workers: without a flag, with `shoal.Flag`", "ms",
        no_loss, target=0.98, rounds=3),
]  # fmt: skip
