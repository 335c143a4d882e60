# SPDX-License-Identifier: Apache-2.0
"""One worker of a pool is killed in the midst of its task, as the kernel does when memory runs out.

    python examples/killed_worker.py [--items N] [--processes N]

With the standard library this program never ends: the pool starts another worker, but the program
is not told that one result will never come. Stop it with Ctrl-C, or run it under a time limit. On
shoal that one task fails, with an error that says what happened, and all other tasks finish.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys


def square(number: int) -> int:
    """The task. Simulates the kernel's choice of a victim: the worker that gets number 7."""
    if number == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def main() -> int:
    parser = argparse.ArgumentParser(description="A pool of which one worker is killed.")
    parser.add_argument("--items", type=int, default=100, metavar="N", help="default: 100")
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="default: 2")
    options = parser.parse_args()

    with multiprocessing.Pool(options.processes) as pool:
        results = [pool.apply_async(square, (number,)) for number in range(options.items)]
        done = failed = 0
        for number, result in enumerate(results):
            try:
                done += result.get() == number * number
            except Exception as error:
                failed += 1
                print(f"task {number} failed: {type(error).__name__}")
                print(error, file=sys.stderr)
    print(f"{done} tasks done, {failed} failed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
