# SPDX-License-Identifier: Apache-2.0
"""One run of a program: its time, its memory, and what it leaves behind.

The runner becomes the parent of orphaned processes, so every process that the program starts and
leaves behind is a descendant of the runner, which can find and end it. Memory is sampled in
separate runs, because reading a process's page tables takes time from the program.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

PR_SET_CHILD_SUBREAPER = 36
SAMPLE_EVERY_S = 0.01
# Processes that outlive their program for less than this do not count as left behind: helper
# processes of the standard library end only when they see the program's end of a pipe close.
PATIENCE_S = 5.0


@dataclass
class Run:
    """What one run did. `left`: processes that still existed PATIENCE_S after the program's end."""

    status: int
    seconds: float
    cpu_seconds: float
    output: str
    errors: str
    timed_out: bool = False
    outlived_s: float = 0.0
    left: list[str] = field(default_factory=list)
    temporary_files: list[str] = field(default_factory=list)
    peak_pss_bytes: int | None = None
    parent_peak_rss_bytes: int | None = None
    most_processes: int | None = None


def adopt_orphans() -> None:
    """Become the parent of every descendant whose parent ends."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def run(command: Sequence[str], folder: Path, timeout: float, with_memory: bool) -> Run:
    """Run the command in a folder to its end, or to the timeout."""
    with (
        tempfile.TemporaryDirectory(prefix="shoal-real-") as temporary,
        tempfile.TemporaryFile() as output,
        tempfile.TemporaryFile() as errors,
    ):
        environment = _environment(folder, temporary)
        run = _run(command, environment, folder, timeout, with_memory, output, errors)
        run.temporary_files = sorted(os.listdir(temporary))
        return run


def _environment(folder: Path, temporary: str) -> dict[str, str]:
    """The caller's environment, without settings of shoal and Python, and without the user's caches
    and settings.
    """
    chosen = {n: v for n, v in os.environ.items() if not n.startswith(("SHOAL_", "PYTHON", "XDG_"))}
    chosen.update(HOME=str(folder), TMPDIR=temporary, COLUMNS="80", TERM="dumb")
    return chosen


def _run(
    command: Sequence[str],
    environment: dict[str, str],
    folder: Path,
    timeout: float,
    with_memory: bool,
    output: IO[bytes],
    errors: IO[bytes],
) -> Run:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=errors,
        env=environment,
        cwd=folder,
        start_new_session=True,
    )
    memory = Memory(process.pid) if with_memory else None
    try:
        finished = _wait(process.pid, timeout, memory.sample if memory else None)
    except BaseException:  # the runner is being ended
        _end_descendants(0.0)
        raise
    seconds = time.perf_counter() - started
    if not finished:
        process.kill()
    process.wait()
    ended = time.perf_counter()
    left = _end_descendants(0.0 if not finished else PATIENCE_S)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    outlived = time.perf_counter() - ended
    run = Run(process.returncode, seconds, cpu, _text(output), _text(errors), not finished)
    run.outlived_s = outlived
    run.left = left if finished else []
    if memory:
        run.peak_pss_bytes = memory.peak_pss_bytes
        run.parent_peak_rss_bytes = memory.parent_peak_rss_bytes
        run.most_processes = memory.most_processes
    return run


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "backslashreplace")


def _wait(pid: int, timeout: float, meanwhile: Callable[[], None] | None) -> bool:
    """Wait for a child's end without reaping the child. False: the child still runs after the
    timeout.
    """
    deadline = time.monotonic() + timeout
    descriptor = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            if meanwhile:
                meanwhile()
            if poll.poll(1000 * (min(left, SAMPLE_EVERY_S) if meanwhile else left)):
                return True
        return False
    finally:
        os.close(descriptor)


class Memory:
    """The largest sum of the processes' proportional set sizes over all samples."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.peak_pss_bytes = 0
        self.parent_peak_rss_bytes = 0
        self.most_processes = 0

    def sample(self) -> None:
        sizes = [_kilobytes(pid, "smaps_rollup", "Pss:") for pid in descendants(os.getpid())]
        alive = [size for size in sizes if size]
        self.most_processes = max(self.most_processes, len(alive))
        self.peak_pss_bytes = max(self.peak_pss_bytes, 1024 * sum(alive))
        parent = 1024 * _kilobytes(self._pid, "status", "VmHWM:")
        self.parent_peak_rss_bytes = max(self.parent_peak_rss_bytes, parent)


def _kilobytes(pid: int, file: str, name: str) -> int:
    """A figure of /proc; 0 when the process has ended."""
    try:
        for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return 0


def children(pid: int) -> list[int]:
    """Direct children, zombies included; none of a process that has ended."""
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    except OSError:
        pass
    return found


def descendants(pid: int) -> Iterator[int]:
    for child in children(pid):
        yield child
        yield from descendants(child)


def _end_descendants(patience: float) -> list[str]:
    """Reap the processes that end by themselves in time; then kill the rest, and return their
    names.
    """
    deadline = time.monotonic() + patience
    pause = 0.0005
    while _reap() and time.monotonic() < deadline:
        time.sleep(pause)
        pause = min(2 * pause, 0.02)
    left = [_command_line(pid) for pid in descendants(os.getpid())]
    while remaining := list(descendants(os.getpid())):
        for pid in remaining:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        _reap()
        time.sleep(0.01)
    return left


def _reap() -> bool:
    """Take the status of children that have ended. True: some are still running."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0] != 0:
            pass
    except ChildProcessError:
        return False
    return True


def _command_line(pid: int) -> str:
    try:
        text = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return f"{pid}"
    return text.replace("\0", " ").strip()[:120] or f"{pid}"
