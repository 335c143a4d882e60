# SPDX-License-Identifier: Apache-2.0
"""A Julia set, row by row, in a Pool: rows differ widely in cost, so this tests the scheduling.

    python examples/julia.py [--size N] [--maxiter N] [--processes N]

With the default size and limit the sum of all iterations is 33,219,980.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from functools import partial

C = -0.62772 - 0.42193j
LEFT, RIGHT = -1.8, 1.8


def coordinates(size: int) -> list[float]:
    """The points of one axis, by repeated addition: the published checksum depends on it."""
    step = (RIGHT - LEFT) / size
    points: list[float] = []
    point = LEFT
    while point < RIGHT and len(points) < size:
        points.append(point)
        point += step
    return points


def compute_row(imaginary: float, reals: list[float], maxiter: int) -> int:
    """Iterations over one row of the picture."""
    total = 0
    for real in reals:
        z = complex(real, imaginary)
        n = 0
        while abs(z) < 2 and n < maxiter:
            z = z * z + C
            n += 1
        total += n
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description="Julia set by rows in a pool.")
    parser.add_argument("--size", type=int, default=1000, help="points a side (default: 1000)")
    parser.add_argument("--maxiter", type=int, default=300, help="limit (default: 300)")
    parser.add_argument("--processes", type=int, default=None, metavar="N", help="workers")
    options = parser.parse_args()

    started = time.perf_counter()
    axis = coordinates(options.size)
    row = partial(compute_row, reals=axis, maxiter=options.maxiter)
    with multiprocessing.Pool(options.processes) as pool:
        total = sum(pool.imap_unordered(row, axis))
    print(f"{options.size} x {options.size}: {total:,} iterations")
    print(f"{time.perf_counter() - started:.2f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
