# SPDX-License-Identifier: Apache-2.0
"""The demo: the programs of examples/ under the standard library and under shoal, one table.

Each run is a separate process, the sides alternate, and outputs must agree. Progress goes to
stderr, the table (with --json the figures) to stdout. Exit status: 0, or 1 if a program failed or
its outputs differ.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shoal.cli.compare import SHOAL, STDLIB, Run, find_difference, run_once
from shoal.cli.screen import print_plain_table

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SERIAL = "no workers"
# How long a program may run. A program that takes longer is reported as hanging.
LIMIT_S = 300.0


@dataclass(frozen=True)
class Row:
    """One program of the demo."""

    name: str
    program: str
    what: str
    arguments: tuple[str, ...] = ()
    quick: tuple[str, ...] = ()  # arguments for a demo that only proves that it works
    serial: bool = False  # whether the program has --serial: the same without workers
    hangs_after_s: float = 0.0  # not 0: the standard library hangs, and is stopped after this time

    def command(self, side: str, quick: bool) -> list[str]:
        arguments = self.quick if quick else self.arguments
        serial = ("--serial",) if side == SERIAL else ()
        return [str(EXAMPLES / self.program), *arguments, *serial]


ROWS = (
    Row(
        "corpus",
        "corpus.py",
        "tokenises and parses 300 files, indexes their words",
        ("--files", "300"),
        ("--files", "10"),
    ),
    Row(
        "queues",
        "queue_primes.py",
        "20,000 numbers to workers by a queue, primes back by another",
        ("--numbers", "20000"),
        ("--numbers", "100"),
        serial=True,
    ),
    Row(
        "large data",
        "log_search.py",
        "8 tasks that are given the same 100 MB",
        (),
        ("--megabytes", "1"),
        serial=True,
    ),
    Row(
        "tiny tasks",
        "collatz.py",
        "20,000 tasks of about 10 us, one by one",
        ("--numbers", "20000"),
        ("--numbers", "300"),
        serial=True,
    ),
    Row(
        "rows",
        "julia.py",
        "400 rows of a Julia set, each a task",
        ("--size", "400"),
        ("--size", "20"),
    ),
    Row(
        "a kill",
        "killed_worker.py",
        "100 tasks, and one worker is killed at its work",
        hangs_after_s=3.0,
    ),
)


class Progress:
    """Lines on stderr, each with the time since the demo began."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    def say(self, text: str) -> None:
        sys.stderr.write(f"  {time.monotonic() - self.began:6.1f} s  {text}\n")
        sys.stderr.flush()


class DemoFailed(Exception):
    """A program failed, or its outputs differ."""


def run_side(row: Row, side: str, quick: bool) -> Run:
    """One run. A run without workers is under the standard library."""
    expected_to_hang = bool(row.hangs_after_s) and side == STDLIB
    library = STDLIB if side == SERIAL else side
    limit = row.hangs_after_s if expected_to_hang else LIMIT_S
    if expected_to_hang and quick:
        limit = 1.0
    run = run_once(row.command(side, quick), library, limit)
    if run.failed and not (expected_to_hang and run.timed_out):
        errors = run.errors.decode("utf-8", "backslashreplace")
        raise DemoFailed(f"{row.program}: {run.describe_failure()}\n{errors}")
    return run


def measure(row: Row, rounds: int, quick: bool, progress: Progress) -> dict[str, Any]:
    """All runs of one program; medians in seconds, None for a side that hangs."""
    sides = [STDLIB, SHOAL] + ([SERIAL] if row.serial else [])
    runs: dict[str, list[Run]] = {side: [] for side in sides}
    for number in range(1 if row.hangs_after_s else rounds):
        for side in sides if number % 2 == 0 else reversed(sides):
            run = run_side(row, side, quick)
            runs[side].append(run)
            ending = "does not end" if run.timed_out else f"{run.seconds:.2f} s"
            progress.say(f"{row.program:<18} {side:<17} {ending}")
    finished = [run for side in sides for run in runs[side] if not run.timed_out]
    if difference := find_difference(finished, ()):
        raise DemoFailed(f"{row.program}: the outputs differ\n{difference}")
    seconds = {
        side: None
        if any(run.timed_out for run in runs[side])
        else statistics.median(run.seconds for run in runs[side])
        for side in sides
    }
    return {
        "name": row.name,
        "command": ["examples/" + row.program, *row.command(STDLIB, quick)[1:]],
        "what": row.what,
        "rounds": len(runs[STDLIB]),
        "seconds": seconds,
        "ratio": ratio(seconds[STDLIB], seconds[SHOAL]),
        "all_seconds": {side: [run.seconds for run in runs[side]] for side in sides},
        "said": finished[-1].output.decode().splitlines()[-1],
    }


def ratio(slow: float | None, fast: float | None) -> float | None:
    return slow / fast if slow is not None and fast is not None else None


def shown(seconds: float | None) -> str:
    return "hangs" if seconds is None else f"{seconds:.2f} s"


def print_result(figures: list[dict[str, Any]], seconds: float) -> None:
    headings = ("program", SERIAL, STDLIB, SHOAL, "shoal is")
    rows = []
    for figure in figures:
        times = figure["seconds"]
        gain = figure["ratio"]
        if gain is None:
            verdict = figure["said"]
        else:
            verdict = f"{gain:.2f} x as fast" if gain >= 0.995 else f"{1 / gain:.2f} x as slow"
        serial = shown(times[SERIAL]) if SERIAL in times else ""
        name = " ".join(figure["command"]).removeprefix("examples/")
        rows.append((name, serial, shown(times[STDLIB]), shown(times[SHOAL]), verdict))
    print()
    print_plain_table("Same programs, same output, whole runs (medians):", headings, rows)
    print()
    for figure in figures:
        print(f"  {figure['command'][0].removeprefix('examples/'):<18} {figure['what']}")
    cpus = len(os.sched_getaffinity(0))
    print(f"\n{cpus} CPUs, CPython {platform.python_version()}, {seconds:.0f} s in all.", end=" ")
    command = os.path.relpath(os.path.join(sys.prefix, "bin", "shoal"))
    print(f"One program again: {command} compare examples/corpus.py")


def exit_by(number: int, frame: object) -> None:
    """Leave through `run_once`, which ends the running program."""
    raise SystemExit(128 + number)


def main() -> int:
    parser = argparse.ArgumentParser(description="Ordinary programs on shoal, compared.")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="runs (default: 3)")
    parser.add_argument("--only", metavar="TEXT", help="rows whose name or program has TEXT in it")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: proves that it works")
    parser.add_argument("--json", action="store_true", help="figures instead of the table")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error(f"--rounds {options.rounds}: must be at least 1")
    rows = [row for row in ROWS if not options.only or options.only in f"{row.name} {row.program}"]
    if not rows:
        names = ", ".join(row.name for row in ROWS)
        parser.error(f"--only {options.only}: no such row; there are: {names}")

    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, exit_by)
    progress = Progress()
    try:
        figures = [measure(row, options.rounds, options.quick, progress) for row in rows]
    except DemoFailed as failure:
        sys.stderr.write(f"demo: {failure}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("demo: interrupted\n")
        return 130
    if options.json:
        machine = {"cpus": len(os.sched_getaffinity(0)), "python": platform.python_version()}
        print(json.dumps({"machine": machine, "rows": figures}, indent=2))
    else:
        print_result(figures, time.monotonic() - progress.began)
    return 0


if __name__ == "__main__":
    sys.exit(main())
