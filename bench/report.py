# SPDX-License-Identifier: Apache-2.0
"""Makes the table from samples: medians, ratios, whether the target is reached."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from measure import SHOAL, STDLIB, Row

HEADINGS = ("what", "unit", "stdlib", "shoal", "ratio", "by round", "target", "reached")


def summarize(row: Row, samples: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The result of a row. `samples`: the samples of each side, in the order of the rounds."""
    checks = {repr(sample["check"]) for side in samples.values() for sample in side}
    result: dict[str, Any] = {
        "row": row.name,
        "title": row.title,
        "unit": row.unit,
        "target": row.target,
        "limit": row.limit,
        "checked": len(checks) == 1,
        "checks": sorted(checks),
        "medians": {side: _median(taken) for side, taken in samples.items()},
        "samples": samples,
    }
    if STDLIB in samples and SHOAL in samples:
        pairs = zip(samples[STDLIB], samples[SHOAL])
        result["ratio"] = result["medians"][STDLIB] / result["medians"][SHOAL]
        result["ratios"] = [first["value"] / second["value"] for first, second in pairs]
    result["reached"] = _reached(row, result)
    return result


def _median(samples: Sequence[dict[str, Any]]) -> float:
    return float(statistics.median(sample["value"] for sample in samples))


def _reached(row: Row, result: dict[str, Any]) -> bool | None:
    if not result["checked"]:
        return False
    if row.target is not None:
        return bool(result["ratio"] >= row.target)
    if row.limit is not None:
        return bool(result["medians"][SHOAL] <= row.limit)
    return None


def cells(result: dict[str, Any], peers: Sequence[str] = ()) -> list[str]:
    """One line of the table, with the peers' figures at its end."""
    medians = result["medians"]
    target = result["target"]
    limit = result["limit"]
    line = [
        result["title"],
        result["unit"],
        _figure(medians.get(STDLIB)),
        _figure(medians.get(SHOAL)),
        f"{result['ratio']:.2f}" if "ratio" in result else "",
        f"{min(result['ratios']):.2f}..{max(result['ratios']):.2f}" if "ratio" in result else "",
        f"{target:g}" if target is not None else f"<= {limit:g}" if limit is not None else "",
        _verdict(result),
    ]
    return line + [_figure(medians.get(peer)) for peer in peers]


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _verdict(result: dict[str, Any]) -> str:
    if "error" in result:
        return "failed"
    if not result["checked"]:
        return "WRONG"
    reached = result["reached"]
    if reached is None:
        return ""
    if reached:
        return "yes"
    if result["target"] is not None:
        return f"no, -{100 * (1 - result['ratio'] / result['target']):.0f} %"
    return "no"


def markdown(results: Sequence[dict[str, Any]], peers: Sequence[str], head: str) -> str:
    """The table for the README, with the line that says where it was measured."""
    headings = [*HEADINGS, *peers]
    lines = [
        "| " + " | ".join(headings) + " |",
        "|" + "|".join("---" if number == 0 else "--:" for number in range(len(headings))) + "|",
    ]
    lines += ["| " + " | ".join(cells(result, peers)) + " |" for result in results]
    return "\n".join([*lines, "", head])


def efficiencies(results: Sequence[dict[str, Any]]) -> list[str]:
    """The second core's efficiency, for rows that measured it."""
    lines = []
    for result in results:
        found = {
            side: taken[0]["details"]["efficiency"]
            for side, taken in result["samples"].items()
            if taken and "efficiency" in taken[0]["details"]
        }
        if found:
            figures = ", ".join(f"{side} {value:.2f}" for side, value in found.items())
            lines.append(f"efficiency with two workers, {result['row']}: {figures}")
    return lines
