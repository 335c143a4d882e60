# SPDX-License-Identifier: Apache-2.0
"""Very many very small tasks: how long the Collatz sequence of each number is.

    python examples/collatz.py [--numbers N] [--workers N] [--serial]

From a number n the sequence goes to n / 2 when n is even, else to 3 n + 1. Every number tried so
far has reached 1. One sequence takes some ten microseconds to follow. The program passes the
numbers to `ProcessPoolExecutor.map` without a `chunksize`. With the standard library each number
then costs a message to a worker and a message back, many times the cost of the work, and the
program is slower than a plain loop (`--serial`).
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor


def steps_to_one(number: int) -> int:
    """The task: the length of the sequence that begins with `number`."""
    steps = 0
    while number != 1:
        number = 3 * number + 1 if number % 2 else number // 2
        steps += 1
    return steps


def main() -> int:
    parser = argparse.ArgumentParser(description="Lengths of Collatz sequences by an executor.")
    parser.add_argument(
        "--numbers", type=int, default=60_000, metavar="N", help="from 1 on (default: 60000)"
    )
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="default: 2")
    parser.add_argument("--serial", action="store_true", help="a loop in this process instead")
    options = parser.parse_args()

    started = time.perf_counter()
    numbers = range(1, options.numbers + 1)
    if options.serial:
        lengths = [steps_to_one(number) for number in numbers]
    else:
        with ProcessPoolExecutor(options.workers) as executor:
            lengths = list(executor.map(steps_to_one, numbers))
    longest = max(lengths)
    first = lengths.index(longest) + 1
    print(f"{sum(lengths):,} steps in all; the longest, {longest} steps, begins with {first:,}")
    print(f"{time.perf_counter() - started:.2f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
