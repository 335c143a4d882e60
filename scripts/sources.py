# SPDX-License-Identifier: Apache-2.0
"""Shared by the check scripts: the project's source files, and one way to report findings."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("src", "include", "bindings", "python", "tests", "bench", "examples", "scripts", "fuzz")
CPP = (".cpp", ".hpp")

Finding = tuple[Path, int, str]


def files(*suffixes: str, folders: Iterable[str] = FOLDERS) -> Iterator[Path]:
    """Files with one of these suffixes, sorted, generated ones left out."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in suffixes and path.is_file() and "__pycache__" not in path.parts:
                yield path


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def finish(check: str, findings: Iterable[Finding]) -> None:
    """Prints the findings and ends the program: 1 when there are any."""
    found = sorted(findings)
    for path, line, message in found:
        print(f"{path.relative_to(ROOT)}:{line}: {message}")
    print(f"{check}: {f'{len(found)} findings' if found else 'ok'}")
    sys.exit(bool(found))
