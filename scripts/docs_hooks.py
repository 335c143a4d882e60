# SPDX-License-Identifier: Apache-2.0
"""Inserts rows of README's measured table into pages of the documentation's site (`scripts/docs`),
so that no number is written twice. A page names the rows as they are named in README:

    <!-- rows of README's table
    `Pool.apply` of a no-op, round trip
    100 MB float64 array as argument
    -->
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

README = Path(__file__).resolve().parents[1] / "README.md"
ASKED = re.compile(r"<!-- rows of README's table\n(.*?)\n-->", re.DOTALL)
MEASURED = re.compile(r"<!-- measured: begin -->\n(.*?)<!-- measured: end -->", re.DOTALL)
COLUMNS = ("what", "unit", "stdlib", "shoal", "ratio")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for each page."""
    return ASKED.sub(lambda asked: table(asked[1].splitlines()), markdown)


def table(names: list[str]) -> str:
    """The rows of these names, and the facts about the machine below them."""
    found = MEASURED.search(README.read_text())
    assert found is not None, "README.md has no measured table"
    _plot, lines, facts = found[1].split("\n\n")
    head, _, *rows = (
        [cell.strip() for cell in line.split("|")[1:-1]] for line in lines.split("\n")
    )
    chosen = [head.index(name) for name in COLUMNS]
    shown = [" | ".join(COLUMNS), "--- | --- | --: | --: | --:"]
    for name in names:
        (row,) = (row for row in rows if row[0] == name)
        shown.append(" | ".join(row[column] for column in chosen))
    return "\n".join(f"| {line} |" for line in shown) + "\n\n" + facts
