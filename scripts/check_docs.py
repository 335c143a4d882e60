# SPDX-License-Identifier: Apache-2.0
"""Checks that the targets of references exist: in pages, links to files, quoted paths and quoted
make targets; in comments of the sources, pages and files of the tree."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from sources import ROOT, Finding, files, finish, lines

LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")
PATH = re.compile(
    r"`((?:src|include|bindings|python|tests|bench|examples|docs|scripts|cmake|fuzz)/[\w./-]+)`"
)
# In comments: a page, or a source file as an include line would name it.
NAMED = re.compile(r"(?<![\w/.-])((?:[\w-]+/)*(?:[\w-]+\.md|(?<=/)[\w-]+\.[ch]pp))\b")
COMMENT = {".cpp": "//", ".hpp": "//", ".py": "#"}
TARGET = re.compile(r"`make ([a-z0-9-]+)")


def pages() -> Iterator[Path]:
    yield from sorted(ROOT.glob("*.md"))
    yield from sorted((ROOT / "docs").rglob("*.md"))


def findings(page: Path, targets: set[str]) -> Iterator[Finding]:
    for number, line in enumerate(lines(page), 1):
        for link in LINK.findall(line):
            if not (page.parent / link).exists():
                yield page, number, f"{link}: no such file"
        for path in PATH.findall(line):
            if not (ROOT / path).exists():
                yield page, number, f"{path}: no such file"
        for target in TARGET.findall(line):
            if target not in targets:
                yield page, number, f"make {target}: no such target"


def in_comments(source: Path) -> Iterator[Finding]:
    for number, line in enumerate(lines(source), 1):
        for path in NAMED.findall(line.partition(COMMENT[source.suffix])[2]):
            if not any((ROOT / root / path).exists() for root in (".", "src", "include")):
                yield source, number, f"{path}: no such file"


def main() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    found = [f for page in pages() for f in findings(page, targets)]
    found += [f for source in files(*COMMENT) for f in in_comments(source)]
    finish("docs", found)


if __name__ == "__main__":
    main()
