# SPDX-License-Identifier: Apache-2.0
"""A layer uses only itself and the layers before it; the system and std::atomic stay in os/.

Exceptions, file by file and with the reason, stand in scripts/check_layers_allowed.txt.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from sources import CPP, ROOT, Finding, files, finish, lines

LAYERS = ["os", "arena", "sync", "channel", "codec", "pool", "collections", "trace"]
FOR_ALL = {"src/trace/record.hpp", "src/testing/kill_point.hpp", "src/os/atomic.hpp"}
INCLUDE = re.compile(r'\s*#\s*include\s+(?:"([^"]+)"|<([^>]+)>)')
SYSTEM_HEADER = re.compile(
    r"(sys|linux|asm|netinet|arpa|net)/.*\.h$|(unistd|fcntl|pthread|sched|signal|poll|dlfcn|spawn"
    r"|sys|dirent|semaphore|mqueue|syscall|ucontext|termios|pwd|grp)\.h$"
)
# C++ wrappers of the same things, and atomics that would bypass os/atomic.hpp.
BEHIND_OS = {"atomic", "thread", "mutex", "condition_variable", "semaphore", "csignal"}
CODE = re.compile(r"//.*")
ATOMIC = re.compile(r"std::atomic(_ref|_flag|_thread_fence)?\b|__atomic_|__sync_")


def allowed() -> set[tuple[str, str]]:
    rows = (ROOT / "scripts/check_layers_allowed.txt").read_text(encoding="utf-8").splitlines()
    return {(r.split()[0], r.split()[1]) for r in rows if r and not r.startswith("#")}


def layer_of(path: str) -> str | None:
    parts = path.split("/")
    return parts[1] if parts[0] == "src" and len(parts) > 2 else None


def include_findings(path: Path, exceptions: set[tuple[str, str]]) -> Iterator[Finding]:
    name = path.relative_to(ROOT).as_posix()
    layer = layer_of(name)
    is_test = name.endswith("_test.cpp")
    for number, text in enumerate(lines(path), 1):
        match = INCLUDE.match(text)
        if not match or (name, match[1] or match[2]) in exceptions:
            continue
        own, system = match[1], match[2]
        if system and layer not in ("os", "testing") and layer in LAYERS and not is_test:
            if SYSTEM_HEADER.match(system) or system in BEHIND_OS - {"thread", "mutex"}:
                yield path, number, f"<{system}> belongs in src/os"
        if not own:
            continue
        if not (ROOT / "src" / own).exists():
            if not any((ROOT / base / own).exists() for base in ("include", ".")):
                yield path, number, f'"{own}": include by its path below src/ or include/'
            continue
        target = f"src/{own}"
        if layer == "testing":
            if layer_of(target) not in ("os", "testing") and not is_test:
                yield path, number, f"src/testing uses {own}: only os and itself are below it"
        elif layer in LAYERS and target not in FOR_ALL and not own.startswith("testing/"):
            if LAYERS.index(layer_of(target) or "trace") > LAYERS.index(layer):
                yield path, number, f"{layer} is below {layer_of(target)}: it cannot use {own}"
        elif layer in LAYERS and own.startswith("testing/") and target not in FOR_ALL:
            if not is_test:
                yield path, number, f"{own} is compiled into test builds only"
        if layer in LAYERS and own.startswith("codec/python/") and "codec/python" not in name:
            yield path, number, f"{own}: the core below the bindings knows no Python"


def atomic_findings(path: Path) -> Iterator[Finding]:
    name = path.relative_to(ROOT).as_posix()
    if name == "src/os/atomic.hpp" or name.endswith("_test.cpp") or "src/testing/" in name:
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
