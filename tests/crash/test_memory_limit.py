# SPDX-License-Identifier: Apache-2.0
"""The kernel's out-of-memory killer in a memory cgroup with a limit of its own: a task that needs
too much costs its worker and nothing else, and the error says that a memory limit did it. The arena
does not let it come to that: it raises MemoryError before.

Needs the right to make a memory cgroup (v1, or v2 with the controller delegated); skipped without.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

MiB = 1 << 20


def _own_folders() -> Iterator[tuple[Path, str]]:
    """Where a cgroup could be made, and the name of its limit's file."""
    root = Path("/sys/fs/cgroup")
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            for top in (root / "memory" / path.lstrip("/"), root / "memory"):
                yield top, "memory.limit_in_bytes"
        elif controllers == "":
            yield root / path.lstrip("/"), "memory.max"
            yield root, "memory.max"


@pytest.fixture
def make_cgroup(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """`make_cgroup(limit)`: the folder of a new memory cgroup."""
    made: list[Path] = []

    def make(limit: int) -> Path:
        for parent, file in _own_folders():
            folder = parent / f"shoal-test-{os.getpid()}-{len(made)}"
            try:
                folder.mkdir()
            except OSError:
                continue
            made.append(folder)
            try:
                (folder / file).write_text(str(limit))
                return folder
            except OSError:  # a v2 group without the controller
                continue
        pytest.skip("no memory cgroup can be made here")

    yield make
    for folder in made:
        for _ in range(1000):  # its last processes may just be ending
            try:
                folder.rmdir()
                break
            except OSError:
                time.sleep(0.01)


ENTER = """
import os, sys
with open(sys.argv[1] + "/cgroup.procs", "w") as file:
    file.write(str(os.getpid()))
import shoal
"""


def test_a_task_beyond_the_memory_limit_fails_alone_and_says_so(interpreter, make_cgroup):
    folder = make_cgroup(192 * MiB)
    done = interpreter(
        ENTER
        + """
def need(mebibytes):
    return len(b"x" * (mebibytes << 20))

with shoal.Pool(2) as pool:
    small = [pool.apply_async(need, (1,)) for _ in range(20)]
    try:
        pool.apply(need, (512,))
    except shoal.WorkerDied as error:
        print("limit hit:", error.memory_limit_hit, "signal:", error.signal, error.arguments)
        print("peak:", error.peak_memory > 100 << 20)
    small += [pool.apply_async(need, (1,)) for _ in range(20)]
    print("others:", sum(result.get() for result in small) >> 20)
    print("workers:", len(pool.worker_pids()))
""",
        str(folder),
    )
    assert done.check().splitlines() == [
        "limit hit: True signal: 9 512",
        "peak: True",
        "others: 40",
        "workers: 2",
    ]


def test_the_arena_raises_before_the_memory_limit_is_hit(interpreter, make_cgroup):
    folder = make_cgroup(256 * MiB)
    done = interpreter(
        ENTER
        + """
value = b"x" * (150 << 20)
with shoal.Pool(2) as pool:
    for _ in range(3):
        try:
            pool.apply(len, (value,))
        except MemoryError as error:
            print(type(error).__name__, "limit" in str(error))
    print(pool.apply(len, (value[: 8 << 20],)) >> 20)
""",
        str(folder),
    )
    assert done.check().splitlines() == ["MemoryExhausted True"] * 3 + ["8"]
