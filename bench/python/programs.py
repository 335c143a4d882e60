# SPDX-License-Identifier: Apache-2.0
"""Are whole programs faster, and does the second core help as much as it can?

The examples of this repository, unchanged, as `python prog.py` and as `shoal run prog.py`. For
primes, the book's comparison of chunk sizes (shoal without a chunk size, against the standard
library's best). The times of the programs include the start and end of the interpreter.

Unfair would be: to compare with a chunk size that is bad for the standard library (the best of the
list counts, found on this machine, in this run); to run shoal on cores that the standard library
does not have. Efficiency of the second core: time with one worker / time with two / 2.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from measure import SHOAL, Row, Sample, Scale, best_seconds, open_pool
from tasks import is_prime

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CHUNK_SIZES = (1, 10, 100, 500, 1_000, 2_500, 5_000, 12_500, 25_000, 50_000)


def primes(side: str, scale: Scale) -> Sample:
    """The standard library takes its best chunk size; shoal is given none."""
    numbers = range(scale.pick(100_000, 2_000))
    counts = set()
    times: dict[str, float] = {}
    with open_pool(side) as pool:
        for chunksize in (None, *CHUNK_SIZES):
            call = lambda: counts.add(sum(pool.map(is_prime, numbers, chunksize)))  # noqa: E731
            # The standard library's best of ten sizes is the best of 30 calls, so shoal's one size
            # gets 30 calls too.
            calls = 30 if side == SHOAL and chunksize is None else 3
            times[str(chunksize or "default")] = best_seconds(call, scale.pick(calls, 1))
    value = times["default"] if side == SHOAL else min(times.values())
    return Sample(value * 1e3, sorted(counts), {"ms_by_chunksize": times})


def julia(side: str, scale: Scale) -> Sample:
    arguments = ["--size", "100"] if scale.quick else []
    return _program(side, scale, "julia.py", arguments)


def pi(side: str, scale: Scale) -> Sample:
    return _program(side, scale, "pi.py", ["--darts", str(scale.pick(10_000_000, 100_000))])


def corpus(side: str, scale: Scale) -> Sample:
    root = sysconfig.get_path("stdlib")
    return _program(side, scale, "corpus.py", [f"{root}/json" if scale.quick else root])


def _program(side: str, scale: Scale, name: str, arguments: list[str]) -> Sample:
    seconds, output = _run(side, name, [*arguments, "--processes", "2"])
    details = {}
    if scale.round_number == 0 and not scale.quick:
        alone, same = _run(side, name, [*arguments, "--processes", "1"])
        if same != output:
            raise ValueError(f"{name} printed something else with one worker")
        details = {"one_worker_s": alone, "efficiency": alone / seconds / 2}
    return Sample(seconds, output[-1], details)


def _run(side: str, name: str, arguments: list[str]) -> tuple[float, list[str]]:
    environment = {**os.environ, "SHOAL_RUN": "1" if side == SHOAL else ""}
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - started
    if done.returncode != 0:
        raise RuntimeError(f"{name} failed on {side}: {done.stderr[-2000:]}")
    return seconds, done.stdout.splitlines()


ROWS = [
    Row("primes", "primes below 100,000: shoal's default, against the best chunk size", "ms",
        primes, target=1, rounds=3),
    Row("julia", "`examples/julia.py`, rows of 1000 x 1000", "s", julia, target=1, rounds=3),
    Row("pi", "`examples/pi.py`, 10 million darts", "s", pi, target=1, rounds=3),
    Row("corpus", "`examples/corpus.py`, the standard library's source", "s", corpus, target=1,
        rounds=3),
]  # fmt: skip
