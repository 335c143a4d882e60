# SPDX-License-Identifier: Apache-2.0
"""Makes results from runs, and the table from results.

A result is right if no run failed, all outcomes are equal and nothing was left behind. Ratios are
standard library / shoal: above 1 shoal is faster.
"""

from __future__ import annotations

import difflib
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from case import Case
from running import Run

STDLIB, SHOAL = "stdlib", "shoal"
SIDES = (STDLIB, SHOAL)
# A program may not be slower than this under shoal.
LOWEST_RATIO = 0.97
HEADINGS = (
    "program", "stdlib", "shoal", "ratio", "by round", "CPU", "same output", "memory", "parent",
)  # fmt: skip


def find_problem(side: str, run: Run) -> str | None:
    """What is wrong with a single run, if anything."""
    tail = "".join(f"\n    {line}" for line in run.errors.splitlines()[-12:])
    if run.timed_out:
        return f"{side}: not finished after {run.seconds:.0f} s, killed{tail}"
    if run.status != 0:
        return f"{side}: exit status {run.status}{tail}"
    if run.left:
        return f"{side}: processes left behind: {'; '.join(run.left)}"
    return None


def find_more_files(stdlib: Run, shoal: Run) -> str | None:
    """Some programs leave temporary files under the standard library too; under shoal they may not
    leave more.
    """
    if len(shoal.temporary_files) <= len(stdlib.temporary_files):
        return None
    return f"shoal: temporary files left behind: {', '.join(shoal.temporary_files)}"


def find_difference(expected: str, outcome: str, side: str) -> str | None:
    """The first lines by which an outcome differs from the first run's."""
    if outcome == expected:
        return None
    if not expected:
        return f"{side}: the first run of the standard library had no output"
    found = difflib.unified_diff(
        expected.splitlines(), outcome.splitlines(), "first run", side, lineterm="", n=0
    )
    return "\n    ".join(["the output differs:", *list(found)[:12]])


def summarize(case: Case, runs: dict[str, list[Run]], problems: Sequence[str]) -> dict[str, Any]:
    """All results of a case. The first run of a side is the run in which memory was sampled."""
    result: dict[str, Any] = {
        "case": case.name,
        "title": case.title,
        "group": case.group,
        "parallel_by": case.parallel_by,
        "command": case.command(quick=False),
        "problems": list(problems),
        "sides": {side: _side(taken) for side, taken in runs.items() if taken},
    }
    seconds = {side: [run.seconds for run in runs[side][1:]] for side in SIDES}
    if all(seconds.values()):
        sides = result["sides"]
        result["ratio"] = sides[STDLIB]["median_seconds"] / sides[SHOAL]["median_seconds"]
        result["ratios"] = [a / b for a, b in zip(seconds[STDLIB], seconds[SHOAL])]
        result["cpu_ratio"] = sides[STDLIB]["median_cpu"] / sides[SHOAL]["median_cpu"]
    return result


def _side(runs: Sequence[Run]) -> dict[str, Any]:
    timed = runs[1:] or runs
    side = {
        "median_seconds": statistics.median(run.seconds for run in timed),
        "median_cpu": statistics.median(run.cpu_seconds for run in timed),
        "longest_outlived_s": max(run.outlived_s for run in timed),
        "peak_pss_bytes": runs[0].peak_pss_bytes,
        "parent_peak_rss_bytes": runs[0].parent_peak_rss_bytes,
        "most_processes": runs[0].most_processes,
        "runs": [asdict(run) for run in runs],
    }
    for run in side["runs"]:  # outcomes are compared; results need not hold megabytes
        run["output"], run["errors"] = run["output"][-2000:], run["errors"][-2000:]
    return side


def is_slower(result: dict[str, Any]) -> bool:
    return "ratio" in result and bool(result["ratio"] < LOWEST_RATIO)


def cells(result: dict[str, Any]) -> list[str]:
    """One line of the table."""
    if "ratio" not in result:
        return [result["title"], "", "", "failed", *[""] * (len(HEADINGS) - 4)]
    stdlib, shoal = (result["sides"][side] for side in SIDES)
    ratios = result["ratios"]
    return [
        result["title"],
        f"{stdlib['median_seconds']:.2f} s",
        f"{shoal['median_seconds']:.2f} s",
        f"{result['ratio']:.2f}",
        f"{min(ratios):.2f}..{max(ratios):.2f}",
        f"{stdlib['median_cpu']:.2f}, {shoal['median_cpu']:.2f} s",
        "NO" if result["problems"] else "yes",
        _megabytes(stdlib["peak_pss_bytes"], shoal["peak_pss_bytes"]),
        _megabytes(stdlib["parent_peak_rss_bytes"], shoal["parent_peak_rss_bytes"]),
    ]


def _megabytes(*sizes: int) -> str:
    return ", ".join(f"{size / 2**20:.0f}" for size in sizes) + " MB"


def markdown(results: Sequence[dict[str, Any]], head: str) -> str:
    """The table for the page, and the line that says where it was measured."""
    lines = [
        "| " + " | ".join(HEADINGS) + " |",
        "|---" + "|--:" * (len(HEADINGS) - 1) + "|",
        *("| " + " | ".join(cells(result)) + " |" for result in results),
    ]
    return "\n".join([*lines, "", head])
