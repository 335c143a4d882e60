# SPDX-License-Identifier: Apache-2.0
"""Input for tools that read source: part of the standard library, which every machine has."""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

STANDARD_LIBRARY = Path(sysconfig.get_path("stdlib"))
MIN_BYTES, MAX_BYTES = 1_000, 30_000
# Some tools write a file's modification time into their output.
SAME_TIME = 1_700_000_000


def source_files(count: int) -> list[Path]:
    """The first modules, by name, of ordinary size: the same ones for every run."""
    found: list[Path] = []
    for path in _modules():
        if len(found) == count:
            break
        if MIN_BYTES <= path.stat().st_size <= MAX_BYTES:
            found.append(path)
    return found


def _modules() -> Iterator[Path]:
    """Modules at the top and in packages; no tests, which hold deliberate errors."""
    yield from sorted(STANDARD_LIBRARY.glob("[a-z]*.py"))
    for package in ("asyncio", "email", "json", "logging", "unittest", "xml", "importlib", "http"):
        yield from sorted((STANDARD_LIBRARY / package).rglob("*.py"))


def copy_sources(folder: Path, count: int) -> None:
    """Copy so many modules to FOLDER/tree, as one package whose files all have one time."""
    tree = folder / "tree"
    tree.mkdir()
    for path in source_files(count):
        target = tree / "_".join(path.relative_to(STANDARD_LIBRARY).parts)
        shutil.copy(path, target)
        os.utime(target, (SAME_TIME, SAME_TIME))


def sources(count: int, quick: int) -> Callable[[Path, bool], None]:
    """A case's `prepare` that copies so many modules."""

    def prepare(folder: Path, is_quick: bool) -> None:
        copy_sources(folder, quick if is_quick else count)

    return prepare
