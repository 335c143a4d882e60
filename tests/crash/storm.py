# SPDX-License-Identifier: Apache-2.0
"""A pool under a storm of SIGKILLs, by hand: `python -m tests.crash.storm --seconds 60`.

Every round maps small tasks while random workers (and now and then the agent) are killed, then
checks that each task had exactly one outcome, that the pool is at full strength, and that no memory
is lost. The seed is printed; `--tasks 1000000 --rounds 1` is the test that the promise names.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from typing import Any

import shoal

if __package__:
    from .killing import (
        Storm,
        check_memory,
        check_outcomes,
        check_strength,
        memory_in_use,
        outcomes,
    )
else:
    from killing import Storm, check_memory, check_outcomes, check_strength, memory_in_use, outcomes


def square(value: int) -> int:
    return value * value


def text(value: int) -> str:
    return "x" * (value % 3000)


def nothing(value: int) -> None:
    time.sleep(value % 7 * 1e-4)


TASKS = (square, text, nothing)
SPANS = (
    4 << 20
    # partly used spans that dead workers leave to the next ones: a bound, whatever the deaths
)


def one_round(
    pool: Any, tasks: int, every: float, seed: int, agent_too: float = 0.0
) -> tuple[int, int, float]:
    """Returns (kills, lost tasks, seconds)."""
    choice = random.Random(seed)
    task = choice.choice(TASKS) if tasks < 100_000 else square
    if task is nothing:
        tasks = min(tasks, 1_000)
    chunk = choice.choice((1, 1, 7, 64))
    retries = choice.choice((0, 0, 3))
    begin = time.monotonic()
    with Storm(pool, every, seed, agent_too) as storm:
        found = outcomes(pool.imap(task, range(tasks), chunksize=chunk, retries=retries))
    expected = (lambda index: None) if task is nothing else task
    return storm.kills, check_outcomes(found, expected, tasks), time.monotonic() - begin


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60, help="how long (default 60)")
    parser.add_argument("--rounds", type=int, default=10**9, help="at most this many maps")
    parser.add_argument("--tasks", type=int, default=20_000, help="tasks of a map (default 20,000)")
    parser.add_argument("--workers", type=int, default=4, help="workers (default 4)")
    parser.add_argument(
        "--every", type=float, default=4.0, help="milliseconds between kills (default 4)"
    )
    parser.add_argument(
        "--agent", type=float, default=0.01, help="share of kills that hit the agent"
    )
    parser.add_argument("--start", default="zygote", choices=("zygote", "fork", "spawn"))
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    options = parser.parse_args(arguments)
    print(f"seed {options.seed}", flush=True)
    end = time.monotonic() + options.seconds
    kills = lost = rounds = 0
    with shoal.Pool(options.workers, start=options.start) as pool:
        pool.map(abs, range(100))
        check_strength(pool, options.workers)
        before = memory_in_use() + SPANS
        while rounds == 0 or (time.monotonic() < end and rounds < options.rounds):
            seed = options.seed + rounds
            result = one_round(pool, options.tasks, options.every / 1000, seed, options.agent)
            check_strength(pool, options.workers)
            check_memory(before)
            kills, lost, rounds = kills + result[0], lost + result[1], rounds + 1
            print(
                f"round {rounds} (seed {seed}): {result[0]} kills, {result[1]} lost, "
                f"{result[2]:.1f} s",
                flush=True,
            )
    print(f"{rounds} rounds, {kills} kills, {lost} tasks lost, every outcome exactly once")


if __name__ == "__main__":
    main(sys.argv[1:])
