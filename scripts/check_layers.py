# SPDX-License-Identifier: Apache-2.0
"""Checks that a layer uses only itself and the layers before it, and that only os/ uses the system
and std::atomic.

Exceptions, by file and with the reason, are listed in scripts/check_layers_allowed.txt.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from sources import CPP, ROOT, Finding, files, finish, lines

LAYERS = ["os", "arena", "sync", "channel", "codec", "pool", "collections", "trace", "api"]
FOR_ALL = {"src/trace/record.hpp", "src/testing/kill_point.hpp", "src/os/atomic.hpp"}
INCLUDE = re.compile(r'\s*#\s*include\s+(?:"([^"]+)"|<([^>]+)>)')
SYSTEM_HEADER = re.compile(
    r"(sys|linux|asm|netinet|arpa|net)/.*\.h$|(unistd|fcntl|pthread|sched|signal|poll|dlfcn|spawn"
    r"|sys|dirent|semaphore|mqueue|syscall|ucontext|termios|pwd|grp)\.h$"
)
# C++ wrappers of the same things, and atomics that would bypass os/atomic.hpp.
BEHIND_OS = {"atomic", "condition_variable", "semaphore"}
TEST = re.compile(r"_test\.cpp$|/test_[a-z_]+\.hpp$|_for_test\.hpp$")
CODE = re.compile(r"//.*")
ATOMIC = re.compile(r"std::atomic(_ref|_flag|_thread_fence)?\b|__atomic_|__sync_")


def allowed() -> set[tuple[str, str]]:
    rows = (ROOT / "scripts/check_layers_allowed.txt").read_text(encoding="utf-8").splitlines()
    return {(r.split()[0], r.split()[1]) for r in rows if r and not r.startswith("#")}


def layer_of(path: str) -> str | None:
    parts = path.split("/")
    return parts[1] if parts[0] == "src" and len(parts) > 2 else None


def system_header_findings(header: str) -> Iterator[str]:
    """Findings for a file of a layer above os, which must not include system headers."""
    if SYSTEM_HEADER.match(header) or header in BEHIND_OS:
        yield f"<{header}> belongs in src/os"


def own_header_findings(name: str, header: str) -> Iterator[str]:
    """Findings for a file that includes another file of this tree."""
    layer, target = layer_of(name), f"src/{header}"
    if not (ROOT / target).exists():
        own_folder = "bindings" if name.startswith("bindings/") else "."
        if not any((ROOT / base / header).exists() for base in ("include", ".", own_folder)):
            yield f'"{header}": include by its path below src/ or include/'
        return
    below = layer_of(target) or ""
    if target in FOR_ALL or layer is None or below == layer:
        return
    if layer == "testing":
        if below != "os":
            yield f"src/testing uses {header}: only os is below it"
    elif below == "testing":
        yield f"{header} is compiled into test builds only"
    elif LAYERS.index(below) > LAYERS.index(layer):
        yield f"{layer} is below {below}: it cannot use {header}"
    elif header.startswith("codec/python/"):
        yield f"{header}: the core below the bindings knows no Python"


def include_findings(path: Path, exceptions: set[tuple[str, str]]) -> Iterator[Finding]:
    name = path.relative_to(ROOT).as_posix()
    if TEST.search(name):
        return
    for number, text in enumerate(lines(path), 1):
        match = INCLUDE.match(text)
        if not match or (name, match[1] or match[2]) in exceptions:
            continue
        if match[1]:
            messages = own_header_findings(name, match[1])
        elif layer_of(name) not in (None, "os", "testing"):
            messages = system_header_findings(match[2])
        else:
            continue
        for message in messages:
            yield path, number, message


def atomic_findings(path: Path) -> Iterator[Finding]:
    name = path.relative_to(ROOT).as_posix()
    if name == "src/os/atomic.hpp" or TEST.search(name) or "src/testing/" in name:
        return
    for number, text in enumerate(lines(path), 1):
        if ATOMIC.search(CODE.sub("", text)):
            yield path, number, "only os/atomic.hpp uses the language's atomics"


def main() -> None:
    exceptions = allowed()
    findings: list[Finding] = []
    for path in files(*CPP, folders=("src", "include", "bindings")):
        findings += include_findings(path, exceptions)
        findings += atomic_findings(path)
    finish("layers", findings)


if __name__ == "__main__":
    main()
