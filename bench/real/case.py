# SPDX-License-Identifier: Apache-2.0
"""A case: a program of other people, its input, its command, and the outcome of a run.

A case does not depend on the side. For each run the runner makes an empty folder, lets the case
fill it (`prepare`), runs the command there, and gets the run's outcome from the case (`outcome`).
Two runs agree if their outcomes are equal. So an outcome leaves out everything that differs between
any two runs, such as times and the order in which workers finish.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = Path(__file__).resolve().parent / "programs"

# Groups, each with an environment of its own. All but torch are run when none is chosen.
STDLIB, TOOLS, SCIENCE, TORCH = "stdlib", "tools", "science", "torch"
GROUPS = (STDLIB, TOOLS, SCIENCE, TORCH)


def _nothing(folder: Path, quick: bool) -> None:
    """The program makes its own input."""


def printed(folder: Path, output: str) -> str:
    """The outcome of a program that prints its results in order."""
    return output


@dataclass(frozen=True)
class Case:
    """One program. `arguments` go to the interpreter: `-m module ...` or a script and its own.

    `quick_arguments`: the same with little work, for tests of the runner. `parallel_by`: the calls
    by which the program uses processes, for readers of the table.
    """

    name: str
    title: str
    group: str
    parallel_by: str
    arguments: Sequence[str]
    quick_arguments: Sequence[str] | None = None
    prepare: Callable[[Path, bool], None] = _nothing
    outcome: Callable[[Path, str], str] = printed

    def command(self, quick: bool) -> list[str]:
        """The arguments after the interpreter."""
        if quick and self.quick_arguments is not None:
            return list(self.quick_arguments)
        return list(self.arguments)


def program(name: str, *arguments: object) -> list[str]:
    """The command of a script in programs/."""
    return [str(PROGRAMS / name), *map(str, arguments)]


def lines_in_any_order(folder: Path, output: str) -> str:
    """The outcome of a program that prints results as its workers finish."""
    return "\n".join(sorted(output.splitlines()))


def without(pattern: str) -> Callable[[Path, str], str]:
    """The outcome of a program some of whose text differs from run to run."""

    def outcome(folder: Path, output: str) -> str:
        return re.sub(pattern, "", output, flags=re.MULTILINE)

    return outcome


def files_of(place: str, pattern: str) -> Callable[[Path, str], str]:
    """The outcome of a program that writes files: names, checksums, and what it printed."""

    def outcome(folder: Path, output: str) -> str:
        return "\n".join([*_checksums(folder / place, pattern), output])

    return outcome


def names_of(place: str, pattern: str) -> Callable[[Path, str], str]:
    """The outcome of a program whose files differ from run to run: names, and what it printed."""

    def outcome(folder: Path, output: str) -> str:
        root = folder / place
        return "\n".join([*sorted(str(p.relative_to(root)) for p in root.rglob(pattern)), output])

    return outcome


def _checksums(root: Path, pattern: str) -> Iterator[str]:
    for path in sorted(root.rglob(pattern)):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        yield f"{digest} {path.relative_to(root)}"
