# SPDX-License-Identifier: Apache-2.0
"""Tries an installed shoal. `make wheels`, `make sdist` and the workflow of a release run it, each
time in an environment that has the wheel and nothing of the tree. Prints one line, or fails.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import shoal

UNMODIFIED = """
import multiprocessing

def square(x):
    return x * x

if __name__ == "__main__":
    with multiprocessing.Pool(2) as pool:
        print(type(pool).__module__.split(".")[0], sum(pool.map(square, range(1000))))
"""


def square(x: int) -> int:
    return x * x


def try_pools() -> None:
    with shoal.Pool(2) as pool:
        assert pool.map(square, range(100)) == [x * x for x in range(100)]
    with shoal.Executor(max_workers=2) as executor:
        assert executor.submit(lambda: 6 * 7).result() == 42


def try_shared() -> None:
    queue: shoal.Queue[bytes] = shoal.Queue()
    queue.put(b"x" * 1_000_000)
    assert len(queue.get()) == 1_000_000
    with shoal.Lock():
        assert dict(shoal.Dict({"key": 1})) == {"key": 1}


def try_command() -> None:
    """A program that knows nothing of shoal, run by the command."""
    command = Path(sysconfig.get_path("scripts")) / "shoal"
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "program.py"
        program.write_text(UNMODIFIED)
        done = subprocess.run(
            [str(command), "run", str(program)], capture_output=True, text=True, timeout=120
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["shoal", "332833500"], done.stdout


if __name__ == "__main__":
    try_pools()
    try_shared()
    try_command()
    print(f"shoal {shoal.__version__} works on CPython {sys.version.split()[0]}")
