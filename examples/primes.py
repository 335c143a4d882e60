# SPDX-License-Identifier: Apache-2.0
"""Primes below a limit with a Pool, for a range of chunk sizes.

The example by which *High Performance Python* shows that `chunksize` matters: too small and the
pool is all overhead, too large and one worker ends up with the work.

    python examples/primes.py [--numbers N] [--processes N] [CHUNKSIZE ...]

The count of primes goes to stdout, the time for each chunk size to stderr.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import sys
import time


def is_prime(number: int) -> bool:
    """Trial division: cheap for most numbers, expensive for primes, so chunks differ in cost."""
    if number < 2 or number % 2 == 0:
        return number == 2
    return all(number % divisor for divisor in range(3, math.isqrt(number) + 1, 2))


def main() -> int:
    parser = argparse.ArgumentParser(description="Primes by Pool.map, by chunk size.")
    parser.add_argument(
        "chunksizes",
        nargs="*",
        type=int,
        metavar="CHUNKSIZE",
        help="chunk sizes to try (default: the pool's own choice, once)",
    )
    parser.add_argument(
        "--numbers",
        type=int,
        default=100_000,
        metavar="N",
        help="how many numbers, from 0 (default: 100000)",
    )
    parser.add_argument("--processes", type=int, default=None, metavar="N", help="workers")
    options = parser.parse_args()

    counts = set()
    with multiprocessing.Pool(options.processes) as pool:
        for chunksize in options.chunksizes or [None]:
            started = time.perf_counter()
            counts.add(sum(pool.map(is_prime, range(options.numbers), chunksize)))
            elapsed = time.perf_counter() - started
            print(f"chunksize {chunksize or 'none given'}: {elapsed:.4f} s", file=sys.stderr)
    print(f"{counts.pop():,} primes below {options.numbers:,}")
    return 1 if counts else 0


if __name__ == "__main__":
    sys.exit(main())
