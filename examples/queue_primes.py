# SPDX-License-Identifier: Apache-2.0
"""Primes by worker processes that are fed by one queue and answer by another.

    python examples/queue_primes.py [--start N] [--numbers N] [--workers N] [--serial]

The example by which *High Performance Python* shows what queues cost: the program puts each number
into a manager's queue, workers take them out, test them and put those that are prime into a second
queue. One poison pill for each worker ends it. Testing a number takes some ten microseconds, moving
it through the queues of the standard library ten times as long, so there the program is slower
than a plain loop in one process (`--serial`), however many workers it has.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import sys
import time
from typing import Any

POISON_PILL = None


def is_prime(number: int) -> bool:
    """Trial division, in a loop: all() over a generator takes twice as long."""
    if number < 2 or number % 2 == 0:
        return number == 2
    for divisor in range(3, math.isqrt(number) + 1, 2):  # noqa: SIM110
        if number % divisor == 0:
            return False
    return True


def find_primes(candidates: Any, primes: Any) -> None:
    """A worker: test numbers until the pill comes, then put the pill into the answers."""
    while (number := candidates.get()) is not POISON_PILL:
        if is_prime(number):
            primes.put(number)
    primes.put(POISON_PILL)


def primes_by_workers(numbers: range, workers: int) -> list[int]:
    """Feed the workers, then read answers until each worker has sent its pill."""
    with multiprocessing.Manager() as manager:
        candidates, primes = manager.Queue(), manager.Queue()
        processes = [
            multiprocessing.Process(target=find_primes, args=(candidates, primes))
            for _ in range(workers)
        ]
        for process in processes:
            process.start()
        for number in numbers:
            candidates.put(number)
        for _ in processes:
            candidates.put(POISON_PILL)

        found: list[int] = []
        farewells = 0
        while farewells < workers:
            answer = primes.get()
            if answer is POISON_PILL:
                farewells += 1
            else:
                found.append(answer)
        for process in processes:
            process.join()
    return sorted(found)


def main() -> int:
    parser = argparse.ArgumentParser(description="Primes by workers between two queues.")
    parser.add_argument(
        "--start", type=int, default=10_000_001, metavar="N", help="default: 10000001"
    )
    parser.add_argument(
        "--numbers",
        type=int,
        default=30_000,
        metavar="N",
        help="how many odd numbers from there on (default: 30000)",
    )
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="default: 2")
    parser.add_argument("--serial", action="store_true", help="a loop in this process instead")
    options = parser.parse_args()

    started = time.perf_counter()
    numbers = range(options.start | 1, (options.start | 1) + 2 * options.numbers, 2)
    if options.serial:
        found = [number for number in numbers if is_prime(number)]
    else:
        found = primes_by_workers(numbers, options.workers)
    print(f"{len(found):,} of {len(numbers):,} are prime; the last: {found[-1:]}")
    print(f"{time.perf_counter() - started:.2f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
