# SPDX-License-Identifier: Apache-2.0
"""Put the figures of a run into the README: `python bench/publish.py x86-2core-3.13`.

Reads bench/results/NAME.json, which `bench/run.py --save NAME` wrote: one run on one commit. Writes
the table between the README's marks, and a plot of the ratios beside it. A test compares the
README with the file, so neither is ever edited by hand.

Needs matplotlib: `scripts/publish NAME` installs it and runs this.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import machine
import report

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PLOT = ROOT / "docs" / "measured.svg"
BEGIN, END = "<!-- measured: begin -->\n", "<!-- measured: end -->"
FASTER, SLOWER = "#2a6f97", "#b5654a"


def published(document: dict[str, Any]) -> str:
    """The text between the marks."""
    plot = "![Each row's ratio: how many times as fast as the standard library](docs/measured.svg)"
    table = report.markdown(document["rows"], (), machine.describe(document["machine"]))
    return f"{plot}\n\n{table}\n"


def write_table(document: dict[str, Any]) -> None:
    head, begin, rest = README.read_text().partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        sys.exit(f"publish: {README.name} has no marks {BEGIN.strip()!r} and {END!r}")
    README.write_text(head + begin + published(document) + end + tail)


def names(rows: list[dict[str, Any]]) -> dict[str, str]:
    """{row: title}. The plot has its own order, so "the same, ..." says what it is the same as."""
    found: dict[str, str] = {}
    base = ""
    for row in rows:
        title = row["title"].replace("`", "")
        if title.startswith("the same"):
            title = base + title.removeprefix("the same")
        else:
            base = title.partition(", ")[0]
        found[row["row"]] = title
    return found


def draw(document: dict[str, Any]) -> None:
    """A bar for each row that compares two sides: the median ratio, with a line for the range of
    its rounds.
    """
    import matplotlib
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "shoal"  # the same figures give the same file
    matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text
    matplotlib.rcParams["font.size"] = 8
    rows = [row for row in document["rows"] if "ratio" in row]
    rows.sort(key=lambda row: float(row["ratio"]))
    figure, axes = pyplot.subplots(figsize=(8.2, 0.21 * len(rows) + 0.9), layout="constrained")
    ratios = [row["ratio"] for row in rows]
    colours = [FASTER if ratio >= 1 else SLOWER for ratio in ratios]
    axes.barh(range(len(rows)), [r - 1 for r in ratios], left=1, color=colours, height=0.7)
    for place, row in enumerate(rows):
        axes.plot([min(row["ratios"]), max(row["ratios"])], [place, place], color="#222222", lw=0.8)
        end = max([1.0, row["ratio"], *row["ratios"]])
        axes.annotate(
            f"{row['ratio']:.3g}", (end, place), (3, 0), textcoords="offset points", va="center"
        )
    axes.set_xscale("log")
    axes.set_xlim(min(0.35, *ratios), 2.2 * max(ratios))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    titles = names(document["rows"])
    axes.set_yticks(range(len(rows)), [titles[row["row"]] for row in rows])
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.axvline(1, color="#222222", lw=0.8)
    axes.grid(axis="x", color="#dddddd", lw=0.5)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("times as fast as the standard library (logarithmic); thin lines: all rounds")
    figure.savefig(PLOT, metadata={"Date": None}, facecolor="white")


def main() -> int:
    parser = argparse.ArgumentParser(description="Put the figures of a run into the README.")
    parser.add_argument("name", help="of a file in bench/results, without .json")
    path = ROOT / "bench" / "results" / f"{parser.parse_args().name}.json"
    if not path.exists():
        sys.exit(f"publish: no {path.relative_to(ROOT)}: `bench/run.py --save` writes it")
    document = json.loads(path.read_text())
    failed = [row["row"] for row in document["rows"] if not row["checked"]]
    if document["quick"] or failed:
        sys.exit(f"publish: a quick run, or rows that failed, prove nothing: {failed}")
    write_table(document)
    draw(document)
    print(f"{README.name} and {PLOT.relative_to(ROOT)}: commit {document['machine']['commit']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
