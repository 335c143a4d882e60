# SPDX-License-Identifier: Apache-2.0
"""Run the benchmarks: `make bench`, or `python bench/run.py --help`.

Each sample is taken in a fresh process. Within a round all sides of a row follow one another, and
from round to round they change places, so drift of the machine affects all equally. Results go to
bench/results/local/ as JSON with the facts of the machine; `--save NAME` puts them where they can
be committed. Exit status 1 if a side fails or checksums differ. Times never affect it.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import machine
import report
from measure import Row, Scale
from rivals import peers
from shoal.cli.screen import print_table, show_progress

FOLDER = Path(__file__).resolve().parent
MODULES = (
    "dispatch", "transfer", "sync", "queues", "pipes", "managers", "processes", "start",
    "joblib_calls",
    "programs", "verify", "shown",
)  # fmt: skip
MARK = "shoal-bench-sample:"


def all_rows() -> list[Row]:
    """Every row, in the order of the table."""
    return [row for name in MODULES for row in importlib.import_module(f"python.{name}").ROWS]


def take_here(name: str, side: str, scale: Scale) -> None:
    """Take one sample in this process, and print it for the process that asked."""
    row = next(row for row in all_rows() if row.name == name)
    sample = row.measure(side, scale)
    print(MARK + json.dumps(sample.as_json()), flush=True)


def take(row: Row, side: str, scale: Scale, timeout: float) -> dict[str, Any]:
    """Take one sample in a fresh process."""
    command = [sys.executable, str(FOLDER / "run.py"), "--sample", row.name, side]
    command += ["--round", str(scale.round_number)] + (["--quick"] if scale.quick else [])
    environment = {name: v for name, v in os.environ.items() if name != "SHOAL_RUN"}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=timeout, check=False
    )
    for line in reversed(done.stdout.splitlines()):
        if line.startswith(MARK) and done.returncode == 0:
            sample: dict[str, Any] = json.loads(line[len(MARK) :])
            return sample
    raise RuntimeError(f"{row.name} on {side}: status {done.returncode}\n{done.stderr[-3000:]}")


def run_row(row: Row, options: argparse.Namespace) -> dict[str, Any]:
    """All rounds of a row. A side that fails ends the row, with its error in the result."""
    sides = list(row.sides) + (options.peers if row.peers else [])
    rounds = 1 if options.quick else options.rounds or row.rounds
    samples: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    try:
        for number in range(rounds):
            turned = sides[number % len(sides) :] + sides[: number % len(sides)]
            for side in turned:
                show_progress(f"{row.name}: round {number + 1}/{rounds}, {side}")
                scale = Scale(options.quick, number)
                samples[side].append(take(row, side, scale, options.timeout))
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        show_progress("")
        sys.stderr.write(f"bench: {error}\n")
        return {**_without_samples(row), "error": str(error)}
    show_progress("")
    return report.summarize(row, samples)


def _without_samples(row: Row) -> dict[str, Any]:
    return {
        "row": row.name,
        "title": row.title,
        "unit": row.unit,
        "target": row.target,
        "limit": row.limit,
        "checked": False,
        "reached": False,
        "medians": {},
        "samples": {},
    }


def write_results(document: dict[str, Any], name: str | None) -> Path:
    """The JSON file, under a name that sorts by time unless one is given."""
    stamp = document["machine"]["time"].replace(":", "").replace("+0000", "Z")
    path = FOLDER / "results" / (f"{name}.json" if name else f"local/{stamp}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


def print_results(results: Sequence[dict[str, Any]], options: argparse.Namespace) -> None:
    """The table, for the terminal or as Markdown."""
    facts = machine.facts()
    if options.markdown:
        print(report.markdown(results, options.peers, machine.describe(facts)))
    else:
        lines = [report.cells(result, options.peers) for result in results]
        headings = [*report.HEADINGS, *options.peers]
        print_table(machine.describe(facts), headings, lines)
    for line in report.efficiencies(results):
        print(line)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="shoal's benchmarks.")
    parser.add_argument("--quick", action="store_true", help="each row once, briefly (for CI)")
    parser.add_argument(
        "--only", metavar="PATTERN", default="*", help="rows by name, as in a shell"
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds (default: by row, 3 or 5)")
    parser.add_argument("--peers", metavar="NAMES", default="", help="rivals: joblib,loky")
    parser.add_argument("--markdown", action="store_true", help="the table for the README")
    parser.add_argument("--save", metavar="NAME", help="keep the JSON as bench/results/NAME.json")
    parser.add_argument("--timeout", type=float, default=900, help="seconds for one sample")
    parser.add_argument("--list", action="store_true", help="the names of all rows")
    parser.add_argument("--sample", nargs=2, metavar=("ROW", "SIDE"), help=argparse.SUPPRESS)
    parser.add_argument("--round", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.peers = [name for name in options.peers.split(",") if name]
    for name in options.peers:
        if not peers.available(name):
            parser.error(f"peer {name!r} is not installed (known: {', '.join(peers.NAMES)})")
    return options


def main() -> int:
    options = parse_arguments()
    if options.sample:
        name, side = options.sample
        take_here(name, side, Scale(options.quick, options.round))
        return 0
    rows = [row for row in all_rows() if fnmatch.fnmatch(row.name, options.only)]
    if options.list:
        for row in rows:
            print(f"{row.name:<16} {row.title}")
        return 0
    if not rows:
        sys.stderr.write(f"bench: no row matches {options.only!r}\n")
        return 2
    facts = machine.facts()
    results = [run_row(row, options) for row in rows]
    print_results(results, options)
    path = write_results({"machine": facts, "quick": options.quick, "rows": results}, options.save)
    print(f"written: {path.relative_to(FOLDER.parent)}")
    return 0 if all(result["checked"] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
