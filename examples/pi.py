# SPDX-License-Identifier: Apache-2.0
"""Pi by throwing darts, in a Pool: the same random streams whatever the number of workers.

    python examples/pi.py [--darts N] [--blocks N] [--processes N]

Each block of darts has its own generator, seeded with the block's number, so the estimate depends
only on the numbers of darts and blocks.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import sys
import time


def count_hits(task: tuple[int, int]) -> int:
    """Darts of one block that fall inside the quarter circle."""
    seed, darts = task
    throw = random.Random(seed).random
    return sum(throw() ** 2 + throw() ** 2 <= 1.0 for _ in range(darts))


def main() -> int:
    parser = argparse.ArgumentParser(description="Monte Carlo estimate of pi in a pool.")
    parser.add_argument("--darts", type=int, default=10_000_000, help="default: 10,000,000")
    parser.add_argument("--blocks", type=int, default=64, help="tasks (default: 64)")
    parser.add_argument("--processes", type=int, default=None, metavar="N", help="workers")
    options = parser.parse_args()

    started = time.perf_counter()
    darts = options.darts // options.blocks
    with multiprocessing.Pool(options.processes) as pool:
        hits = sum(pool.map(count_hits, [(seed, darts) for seed in range(options.blocks)]))
    print(
        f"{hits:,} of {darts * options.blocks:,} darts: pi is about "
        f"{4 * hits / (darts * options.blocks):.6f}"
    )
    print(f"{time.perf_counter() - started:.2f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
