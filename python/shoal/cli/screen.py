# SPDX-License-Identifier: Apache-2.0
"""Tables on the terminal: with rich where it is installed, otherwise in plain text."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def print_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table whose first column is text and whose other columns are figures."""
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        print_plain_table(title, headings, rows)
        return
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for column, heading in enumerate(headings):
        table.add_column(heading, justify="right" if column else "left", no_wrap=column > 0)
    for row in rows:
        table.add_row(*row)
    width = None if sys.stdout.isatty() else 120
    Console(width=width, highlight=False, markup=False).print(table)


def print_plain_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """The same without rich."""
    lines = [list(headings), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    print(title)
    for number, line in enumerate(lines):
        cells = [
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths))
        ]
        print("  " + "  ".join(cells).rstrip())
        if number == 0:
            print("  " + "  ".join("-" * width for width in widths))


def show_progress(text: str) -> None:
    """Show a line on a terminal's stderr, which the next call overwrites. Empty text clears it."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def print_facts(sections: dict[str, dict[str, str]]) -> None:
    """Named facts in sections."""
    width = max(len(name) for facts in sections.values() for name in facts)
    for title, facts in sections.items():
        print(title)
        for name, value in facts.items():
            print(f"  {name:<{width}}  {value}")
