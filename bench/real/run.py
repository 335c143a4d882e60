# SPDX-License-Identifier: Apache-2.0
"""Run programs of other people under the standard library and under shoal, and compare.

    .venv/bin/python bench/real/run.py            every case but torch's, five rounds
    ... --only 'pylint*' --rounds 3               some cases
    ... --group torch                             the cases that need 5 GB of packages

Each run is a fresh program in a fresh folder. The first run of each side warms the file cache, and
its memory is sampled; its time is not counted. In the following rounds the sides alternate and
change places (A B, B A, ...), so drift of the machine affects both equally. Exit status: 0 all is
well, 1 a program failed, differed or left something behind, 2 wrong usage. Times never affect it.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))
sys.path.insert(2, str(Path(__file__).resolve().parents[2] / "python"))

import machine
import results
from case import GROUPS, TORCH, Case
from environments import Environment, EnvironmentFailed, environment_of
from results import SHOAL, SIDES, STDLIB
from running import Run, adopt_orphans, run
from shoal.cli.screen import print_table, show_progress

FOLDER = Path(__file__).resolve().parent
# A median of few runs means little while other programs use the processors.
QUIET_LOAD = 0.5


def all_cases() -> list[Case]:
    """Every case, by group, then by file."""
    names = sorted(path.stem for path in (FOLDER / "cases").glob("[a-z]*.py"))
    modules = [importlib.import_module(f"cases.{name}") for name in names]
    found = [case for module in modules for case in module.CASES]
    return sorted(found, key=lambda case: GROUPS.index(case.group))


def command_of(case: Case, side: str, environment: Environment, quick: bool) -> list[str]:
    """`python ...` for one side, `shoal run ...` for the other."""
    start = [str(environment.shoal), "run"] if side == SHOAL else [str(environment.python)]
    return [*start, *case.command(quick)]


class CaseRun:
    """The runs of one case, and what was wrong with them."""

    def __init__(self, case: Case, environment: Environment, options: argparse.Namespace) -> None:
        self._case = case
        self._environment = environment
        self._options = options
        self._runs: dict[str, list[Run]] = {side: [] for side in SIDES}
        self._expected: str | None = None
        self.problems: list[str] = []

    def all_rounds(self, scratch: Path) -> dict[str, Any]:
        """Round 0 samples memory and is not timed. A round with a problem is the last one."""
        rounds = 1 if self._options.quick else self._options.rounds
        for number in range(rounds + 1):
            for side in reversed(SIDES) if number % 2 else SIDES:
                show_progress(f"{self._case.name}: round {number} of {rounds}, {side}")
                self._once(side, scratch / "run", with_memory=number == 0)
            if self.problems:
                break
        show_progress("")
        return results.summarize(self._case, self._runs, self.problems)

    def _once(self, side: str, folder: Path, with_memory: bool) -> None:
        quick = self._options.quick
        folder.mkdir()
        try:
            self._case.prepare(folder, quick)
            command = command_of(self._case, side, self._environment, quick)
            done = run(command, folder, self._options.timeout, with_memory)
            self._runs[side].append(done)
            problem = results.find_problem(side, done)
            if problem is None and side == SHOAL:
                problem = results.find_more_files(self._runs[STDLIB][0], done)
            if problem is None:
                problem = self._compare(side, self._case.outcome(folder, done.output))
            if problem is not None:
                self.problems.append(problem)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _compare(self, side: str, outcome: str) -> str | None:
        """All outcomes must equal the first one, which must not be empty."""
        if self._expected is None:
            self._expected = outcome
        return results.find_difference(self._expected or "", outcome, side) or (
            None if outcome else f"{side}: no output"
        )


def run_cases(
    cases: Iterable[Case], options: argparse.Namespace, write: Callable[[list[Any]], None]
) -> list[dict[str, Any]]:
    """Run them one after another; each result is shown and written as soon as it is known."""
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="shoal-real-") as scratch:
        for case in cases:
            environment = environment_of(case.group)
            result = CaseRun(case, environment, options).all_rounds(Path(scratch))
            found.append(result)
            print(_one_line(result), flush=True)
            write(found)
    return found


def _one_line(result: dict[str, Any]) -> str:
    text = f"{result['case']:<24}"
    if "ratio" in result:
        slower = "  SLOWER" if results.is_slower(result) else ""
        text += "  ".join(results.cells(result)[1:6]) + slower
    return "\n  ".join([text, *result["problems"]])


def warn_of_load() -> None:
    load = os.getloadavg()[0]
    if load > QUIET_LOAD:
        sys.stderr.write(
            f"real: the machine is busy (load {load:.1f}): times and ratios are rough. On a quiet"
            f" machine the load is below {QUIET_LOAD}.\n"
        )


def end_programs_when_told_to_end() -> None:
    """Leave by an exception, through `running.run`, which ends the running program."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, leave)


def choose(options: argparse.Namespace) -> list[Case]:
    """The selected cases; by default all but torch's."""
    cases = all_cases()
    if options.group:
        cases = [case for case in cases if case.group == options.group]
    elif not options.only:
        cases = [case for case in cases if case.group != TORCH]
    patterns = (options.only or "*").split(",")
    return [case for case in cases if any(fnmatch.fnmatch(case.name, p) for p in patterns)]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Programs of other people, under the standard library and under shoal."
    )
    parser.add_argument("--only", metavar="NAMES", help="cases by name, as in a shell; a,b for two")
    parser.add_argument("--group", choices=GROUPS, help="the cases of one environment")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="timed rounds (5)")
    parser.add_argument("--quick", action="store_true", help="one round with little work")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the results here")
    parser.add_argument("--markdown", action="store_true", help="print the table for a page")
    parser.add_argument("--timeout", type=float, default=120, metavar="S", help="of one run (120)")
    parser.add_argument("--list", action="store_true", help="the names of the cases")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error(f"--rounds {options.rounds}: at least 1")
    return options


def main() -> int:
    options = parse_arguments()
    cases = choose(options)
    if options.list:
        for case in cases:
            print(f"{case.name:<24} {case.group:<8} {case.title}")
        return 0
    if not cases:
        sys.stderr.write(f"real: no case matches {options.only!r}; --list names them\n")
        return 2
    warn_of_load()
    adopt_orphans()
    end_programs_when_told_to_end()
    facts = machine.facts()

    def write(found: list[Any]) -> None:
        if options.json:
            document = {"machine": facts, "quick": options.quick, "cases": found}
            options.json.write_text(json.dumps(document, indent=1) + "\n")

    try:
        found = run_cases(cases, options, write)
    except EnvironmentFailed as error:
        sys.stderr.write(f"real: {error}\n")
        return 1
    if options.markdown:
        print(results.markdown(found, machine.describe(facts)))
    else:
        table = [[result["case"], *results.cells(result)[1:]] for result in found]
        print_table(machine.describe(facts), results.HEADINGS, table)
    return 1 if any(result["problems"] for result in found) else 0


if __name__ == "__main__":
    sys.exit(main())
