# SPDX-License-Identifier: Apache-2.0
"""Checks that files have at most 800 lines of at most 100 columns, and begin with their licence.

Also checks that no merge markers are left, and that every C++ test is where the build looks for
tests.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from sources import CPP, ROOT, Finding, files, finish, lines

MAX_LINES = 800
MAX_COLUMNS = 100
LICENCE = "SPDX-License-Identifier: Apache-2.0"
LEFTOVER = re.compile(r"(<<<<<<<|>>>>>>>) |\b(XXX|FIXME)\b|\bTODO(?!\((perf|port|cleanup|#\d+)\))")
PRAGMA = re.compile(r"\s+# (type: ignore|noqa).*")
BUILT_TESTS = re.compile(
    r"src/(os|arena|sync|channel|codec|pool|collections|trace|api|testing)/[^/]+$"
)


def findings(path: Path) -> Iterator[Finding]:
    text = lines(path)
    name = path.relative_to(ROOT).as_posix()
    if len(text) > MAX_LINES:
        yield path, len(text), f"{len(text)} lines: the limit is {MAX_LINES}"
    if text and not any(LICENCE in line for line in text[:3]):
        yield path, 1, f"the first lines lack: {LICENCE}"
    for number, line in enumerate(text, 1):
        columns = len(PRAGMA.sub("", line))
        if columns > MAX_COLUMNS and "http" not in line:
            yield path, number, f"{columns} columns: the limit is {MAX_COLUMNS}"
        if LEFTOVER.search(line) and path.name != Path(__file__).name:
            yield path, number, "a leftover: a TODO has a kind, TODO(perf|port|cleanup|#123)"
    if path.name.endswith("_test.cpp") and not BUILT_TESTS.match(name):
        yield path, 1, "this test is not in the build: it belongs beside what it tests in src/"


def main() -> None:
    finish("sizes", (f for path in files(*CPP, ".py", ".pyi") for f in findings(path)))


if __name__ == "__main__":
    main()
