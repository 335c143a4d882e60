# SPDX-License-Identifier: Apache-2.0
"""Runs clang-tidy once on each source: clang_tidy.py BUILD_FOLDER [FILES...].

The compile commands list most sources twice, for the core and for its test variant. The last entry
is used, because its kill points are active. Everything on which a clean result depends is hashed
into the name of an empty file under BUILD_FOLDER/tidy, so that an unchanged source costs nothing
the next time. System headers are not hashed themselves; instead, the pinned requirements and the
folders in the compile command are.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADERS = f"^{re.escape(str(ROOT))}/(src|include|bindings)/"
INCLUDE = re.compile(r'^\s*#\s*include\s+["<]([^">]+)[">]', re.MULTILINE)
RULES = (".clang-tidy", "scripts/clang_tidy.py", "scripts/requirements-check.txt",
         "scripts/requirements-build.txt")  # fmt: skip


def commands(build: Path) -> dict[Path, list[str]]:
    """The compiler's arguments for each source of src and bindings, tests left out."""
    found = {}
    for entry in json.loads((build / "compile_commands.json").read_text(encoding="utf-8")):
        source = Path(entry["file"])
        ours = any(source.is_relative_to(ROOT / folder) for folder in ("src", "bindings"))
        if ours and not source.name.endswith("_test.cpp"):
            words = shlex.split(entry["command"])
            first = next(i for i, word in enumerate(words) if word.startswith("-"))
            found[source] = words[first : words.index("-o")]
    return found


@cache
def included(file: Path) -> frozenset[Path]:
    """The tree's own headers that the file includes directly."""
    names = INCLUDE.findall(file.read_text(encoding="utf-8"))
    places = (file.parent, ROOT / "src", ROOT / "include", ROOT)
    paths = (next((p / n for p in places if (p / n).is_file()), None) for n in names)
    return frozenset(path for path in paths if path is not None)


def reached(file: Path) -> Iterator[Path]:
    """The file and all of the tree's headers under it."""
    seen, todo = {file}, [file]
    while todo:
        new = included(todo.pop()) - seen
        seen |= new
        todo += new
    yield from sorted(seen)


def digest(source: Path, arguments: list[str], rules: bytes) -> str:
    hashed = hashlib.sha256(rules)
    hashed.update(json.dumps(arguments).encode())
    for file in reached(source):
        hashed.update(f"\n{file}\n".encode() + file.read_bytes())
    return hashed.hexdigest()


def run(source: Path, arguments: list[str], clean: Path) -> str:
    """clang-tidy's findings for the source; empty if it is clean."""
    if clean.exists():
        return ""
    # The arguments are for g++, and clang does not know all of its warnings.
    tidy = ["clang-tidy", "--quiet", f"--header-filter={HEADERS}", str(source), "--", *arguments,
            "-Wno-unknown-warning-option"]  # fmt: skip
    done = subprocess.run(tidy, capture_output=True, text=True, check=False)
    if done.returncode == 0 and not done.stdout.strip():
        clean.touch()
        return ""
    return done.stdout.strip() or f"{source}: clang-tidy failed\n{done.stderr}"


def main() -> None:
    build, names = Path(sys.argv[1]), sys.argv[2:]
    all_commands = commands(build)
    sources = [Path(name).resolve() for name in names] or sorted(all_commands)
    if unknown := [str(s) for s in sources if s not in all_commands]:
        sys.exit(f"clang-tidy: not among the sources that are built: {', '.join(unknown)}")
    rules = b"".join((ROOT / rule).read_bytes() for rule in RULES)
    folder = build / "tidy"
    folder.mkdir(exist_ok=True)
    jobs = [(s, all_commands[s], folder / digest(s, all_commands[s], rules)) for s in sources]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        outputs = list(threads.map(lambda job: run(*job), jobs))
    # A finding in a header is reported for each source that includes it.
    findings = dict.fromkeys(
        part.strip() for out in outputs for part in re.split(r"\n(?=/)", out) if part.strip()
    )
    for finding in findings:
        print(finding.replace(f"{ROOT}/", ""))
    for old in set(folder.iterdir()) - {clean for _, _, clean in jobs} if not names else ():
        old.unlink()
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()
