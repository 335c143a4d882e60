# SPDX-License-Identifier: Apache-2.0
"""What every Python test gets: a proof that it left nothing behind, and a way to run programs.

After each test: no child process of this one, no more file descriptors than before, no new file in
/dev/shm, no new thread. What a session keeps for its lifetime (the arena's memory file, the agent)
is told apart by what it is, not by counting: see `KEPT`.
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from pathlib import Path

import pytest
from hypothesis import settings

# A failing example prints a line that reproduces it; slow machines are no failures.
settings.register_profile("shoal", deadline=None, print_blob=True)
settings.register_profile("ci", settings.get_profile("shoal"), max_examples=50)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "shoal"))

# A shell's background job starts with Ctrl-C ignored, and its children would be: tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

TREE = Path(__file__).resolve().parents[1]
# Targets of /proc/self/fd links that belong to the session, not to a test.
KEPT = ("/memfd:shoal", "/dev/urandom", "/dev/null", "/dev/shm/pym-")  # the last: stock values
# How long what a test has closed may take to be gone: a dying process is torn down by the kernel.
PATIENCE_S = 10.0


def children() -> set[int]:
    """Direct children of this process, zombies included."""
    found: set[int] = set()
    for task in os.listdir("/proc/self/task"):
        try:
            text = Path(f"/proc/self/task/{task}/children").read_text()
        except FileNotFoundError:  # the thread ended, or the kernel lacks the file
            continue
        found.update(map(int, text.split()))
    return found


def command_line(pid: int) -> str:
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        return (
            raw.replace("\0", " ").strip()
            or Path(f"/proc/{pid}/comm").read_text().strip() + " (zombie)"
        )
    except OSError:
        return "(gone)"


def is_kept_process(pid: int) -> bool:
    """The standard library's helpers, which live as long as the interpreter."""
    text = command_line(pid)
    return "resource_tracker" in text or "forkserver" in text


def file_descriptors() -> dict[int, str]:
    found: dict[int, str] = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # the listing's own descriptor
            continue
        if not target.startswith(KEPT):
            found[int(name)] = target
    for fd in kept_descriptors():
        found.pop(fd, None)
    return found


def kept_descriptors() -> set[int]:
    """This process's ends of the pipes to those helpers, which the first use of spawn makes."""
    tracker, server = resource_tracker._resource_tracker, forkserver._forkserver
    return {fd for fd in (tracker._fd, server._forkserver_alive_fd) if fd is not None}


def shared_memory_files() -> set[str]:
    return {name for name in os.listdir("/dev/shm") if os.stat(f"/dev/shm/{name}").st_uid == UID}


UID = os.getuid()


def descends_from_this(pid: int) -> bool:
    while pid > 1 and pid != os.getpid():
        stat = Path(f"/proc/{pid}/stat").read_text()
        pid = int(stat.rpartition(")")[2].split()[1])
    return pid == os.getpid()


def is_of_others(name: str) -> bool:
    """Whether a process has the file mapped that does not descend from this one: other programs of
    this user may run on the machine. Told by inode: a semaphore is mapped under an earlier name.
    """
    try:
        inode = str(os.stat(f"/dev/shm/{name}").st_ino)
    except OSError:
        return False
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            lines = Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines()
            mapped = any("/dev/shm/" in line and line.split()[4] == inode for line in lines)
            if mapped and not descends_from_this(int(pid)):
                return True
        except OSError:  # it has ended
            continue
    return False


@dataclass
class Possessions:
    processes: set[int]
    descriptors: dict[int, str]
    files: set[str]
    threads: set[threading.Thread]

    @classmethod
    def now(cls) -> Possessions:
        files = set()
        try:
            files = shared_memory_files()
        except OSError:  # another process removed one meanwhile
            pass
        return cls(children(), file_descriptors(), files, set(threading.enumerate()))

    def left_since(self, before: Possessions) -> list[str]:
        """What is here now and was not before, as sentences."""
        processes = [p for p in self.processes - before.processes if not is_kept_process(p)]
        left = [f"process {p}: {command_line(p)}" for p in processes]
        left += [
            f"file descriptor {fd}: {target}"
            for fd, target in self.descriptors.items()
            if fd not in before.descriptors
        ]
        new_files = self.files - before.files
        left += [f"/dev/shm/{name}" for name in new_files if not is_of_others(name)]
        left += [f"thread {t.name}" for t in self.threads - before.threads if t.is_alive()]
        return left


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves a process, descriptor, thread or shared memory file behind."""
    before = Possessions.now()
    yield
    left = Possessions.now().left_since(before)
    if not left:
        return
    deadline = time.monotonic() + PATIENCE_S
    while left and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
        left = Possessions.now().left_since(before)
    for pid in Possessions.now().processes - before.processes:
        if not is_kept_process(pid):
            os.kill(pid, signal.SIGKILL)  # the next test starts clean
    assert not left, "left behind: " + "; ".join(left)


@dataclass
class Finished:
    """A program that has ended: its exit status and what it printed."""

    returncode: int
    out: str
    err: str

    def check(self) -> str:
        assert self.returncode == 0, f"exit status {self.returncode}\n{self.out}\n{self.err}"
        return self.out


@dataclass
class Interpreter:
    """Runs programs in interpreters of their own: `interpreter("print(1)").check()`."""

    folder: Path

    def __call__(
        self,
        program: str | Path,
        *arguments: str,
        timeout: float = 60,
        input: str | None = None,
        env: dict[str, str] | None = None,
        options: tuple[str, ...] = (),
    ) -> Finished:
        process = self.start(program, *arguments, env=env, options=options)
        try:
            out, err = process.communicate(input, timeout=timeout)
        except subprocess.TimeoutExpired:
            # A hang: have it say where, then end it with its whole process group.
            os.kill(process.pid, signal.SIGABRT)
            try:
                out, err = process.communicate(timeout=5)
            except subprocess.TimeoutExpired:
                out, err = "", "(no answer to SIGABRT)"
            self.kill_group(process)
            process.communicate()
            pytest.fail(f"still running after {timeout} s\n{out}\n{err}")
        return Finished(process.returncode, out, err)

    def start(
        self,
        program: str | Path,
        *arguments: str,
        env: dict[str, str] | None = None,
        options: tuple[str, ...] = (),
    ) -> subprocess.Popen[str]:
        """The process only, in a process group of its own; the caller waits for it."""
        if isinstance(program, str):
            number = len(list(self.folder.iterdir()))
            path = self.folder / f"program_{number}.py"
            path.write_text(textwrap.dedent(program))
            program = path
        return subprocess.Popen(
            [sys.executable, "-X", "faulthandler", *options, str(program), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )

    @staticmethod
    def kill_group(process: subprocess.Popen[str]) -> None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


@pytest.fixture
def interpreter(tmp_path: Path) -> Interpreter:
    folder = tmp_path / "programs"
    folder.mkdir()
    return Interpreter(folder)


@pytest.fixture
def wait_until() -> Callable[..., None]:
    """`wait_until(condition, what)`: returns when the condition holds, fails after a minute."""

    def wait(condition: Callable[[], object], what: str = "", seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds} s: {what or condition}"
            time.sleep(0.005)

    return wait
