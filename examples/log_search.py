# SPDX-License-Identifier: Apache-2.0
"""Ask several questions about one large text; the task of each question receives the whole text.

    python examples/log_search.py [--megabytes N] [--processes N] [--serial]

A web server's log, made up here, is handed to a pool of processes as one `bytes` object, once for
each word to be counted. Counting is quick; most of the time is spent on sending the text to the
workers. With the standard library each task writes it into a pipe in small pieces, and the program
is slower than a plain loop (`--serial`).
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import sys
import time

METHODS = ("GET", "GET", "GET", "POST", "HEAD")
STATUSES = (200, 200, 200, 200, 301, 404, 500)
QUESTIONS = (b"GET /", b"POST /", b" 200 ", b" 404 ", b" 500 ", b"/items/7", b"/users", b"timeout")


def make_log(size: int) -> bytes:
    """About `size` bytes of log: a few thousand different lines, over and over."""
    lines = []
    for number in range(7_000):
        word = hashlib.md5(str(number).encode()).hexdigest()[:8]
        folder = "items" if number % 3 else "users"
        note = " timeout" if number % 501 == 0 else ""
        lines.append(
            f"10.0.{number % 256}.{number % 199} {METHODS[number % 5]} /{folder}/{word}"
            f" {STATUSES[number % 7]} {number * 37 % 9001}{note}\n"
        )
    block = "".join(lines).encode()
    return block * max(1, size // len(block))


def count(log: bytes, word: bytes) -> int:
    """The task: how often a word stands in the log."""
    return log.count(word)


def main() -> int:
    parser = argparse.ArgumentParser(description="Count words of a large log in a pool.")
    parser.add_argument("--megabytes", type=int, default=100, metavar="N", help="default: 100")
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="default: 2")
    parser.add_argument("--serial", action="store_true", help="a loop in this process instead")
    options = parser.parse_args()

    log = make_log(options.megabytes * 1_000_000)
    started = time.perf_counter()
    tasks = [(log, word) for word in QUESTIONS]
    if options.serial:
        answers = [count(*task) for task in tasks]
    else:
        with multiprocessing.Pool(options.processes) as pool:
            answers = pool.starmap(count, tasks, chunksize=1)
    for word, answer in zip(QUESTIONS, answers):
        print(f"{answer:>12,} x {word.decode()!r}")
    print(f"{time.perf_counter() - started:.2f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
