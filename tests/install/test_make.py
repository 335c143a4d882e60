# SPDX-License-Identifier: Apache-2.0
"""What `make` says on a machine that lacks something: one line that tells what to do, and it fails.

Each test takes something away (the compiler, the network, the disk, a part of Python) and runs the
command that a newcomer would. Environments and builds go to folders of the test's own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TREE = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.install, pytest.mark.timeout(600)]
# Nothing listens there, so every connection is refused at once.
NO_INDEX = "http://127.0.0.1:9/simple"


class Machine:
    """Runs commands of the tree with a PATH and folders of its own."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "bin"
        self.path.mkdir()
        self.environment = {
            "PATH": str(self.path),
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "PYTHON": sys.executable,
            "SHOAL_VENVS": str(folder / "venvs"),
            "SHOAL_BUILDS": str(folder / "build"),
            "PIP_NO_CACHE_DIR": "1",
            "PIP_CONFIG_FILE": os.devnull,
        }
        for place in ("/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"):
            for command in Path(place).glob("*"):
                link = self.path / command.name
                if not link.is_symlink():
                    link.symlink_to(command)

    def lacks(self, *patterns: str) -> Machine:
        for pattern in patterns:
            for command in self.path.glob(pattern):
                command.unlink()
        return self

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(part) for part in command],
            cwd=TREE,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=500,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that was said: neither a step with its time nor make's own closing line."""
    assert done.returncode != 0, done.stdout
    lines = [line for line in done.stderr.splitlines() if not line.startswith(("  ", "make: ***"))]
    assert len(lines) == 1, done.stdout + done.stderr
    return lines[0]


@pytest.mark.parametrize("command", ["demo", "test", "wheels"])
def test_python_that_does_not_exist(machine: Machine, command: str) -> None:
    said = complaint(machine.run("make", command, PYTHON="/nonexistent/python3"))
    assert "PYTHON=/nonexistent/python3: no such command" in said
    assert "CPython 3.10 to 3.15" in said and "make PYTHON=" in said


@pytest.mark.parametrize("version", ["CPython 2.7.18", "CPython 3.9.18", "PyPy 3.10.16"])
def test_python_that_shoal_does_not_support(machine: Machine, tmp_path: Path, version: str) -> None:
    old = tmp_path / "old-python"
    old.write_text(f'#!/bin/sh\n[ "$1" != -I ] || exit 2\necho " is {version}"\n')
    old.chmod(0o755)
    said = complaint(machine.run("make", "demo", PYTHON=str(old)))
    assert f"PYTHON={old} is {version}." in said and "make PYTHON=" in said


def test_no_compiler_and_no_way_to_install_one(machine: Machine) -> None:
    machine.lacks("*g++*", "c++*", "clang*", "apt*")
    said = complaint(machine.run("make", "demo"))
    assert said.startswith("Missing: g++") and "package manager" in said


def test_no_compiler_and_packages_out_of_reach(machine: Machine) -> None:
    machine.lacks("*g++*", "c++*", "clang*", "apt*")
    broken = machine.path / "apt-get"
    broken.write_text('#!/bin/sh\necho "E: Unable to locate package g++" >&2\nexit 100\n')
    broken.chmod(0o755)
    if os.getuid() != 0:
        machine.lacks("sudo")
    said = complaint(machine.run("make", "demo"))
    assert "g++" in said
    if os.getuid() == 0:
        assert "E: Unable to locate package" in said and "make CXX=" in said


def test_compiler_that_does_not_exist(machine: Machine) -> None:
    said = complaint(machine.run("make", "demo", CXX="/nonexistent/c++"))
    assert said.startswith("CXX=/nonexistent/c++: no such command") and "make CXX=" in said


def test_compiler_that_is_none(machine: Machine) -> None:
    """Found by CMake, which says it at length; the environment is this one, ready for use."""
    done = machine.run(
        "bash", "-c", 'source scripts/steps.sh; step "configuring" cmake -S . -B "$TMPDIR/b"',
        CXX="/bin/false",
    )  # fmt: skip
    assert done.returncode != 0
    assert "is not able to compile a simple test program" in done.stdout + done.stderr


@pytest.mark.parametrize("command", ["demo", "wheels"])
def test_no_network(machine: Machine, command: str) -> None:
    said = complaint(machine.run("make", command, PIP_INDEX_URL=NO_INDEX))
    assert said.startswith("No package index can be reached while installing")
    assert "PIP_INDEX_URL" in said and "again" in said


def in_small_disk(machine: Machine, folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    """The command, with a disk of 20 MB at `folder`."""
    folder.mkdir()
    script = f"mount -t tmpfs -o size=20m tmpfs {folder} && exec {command}"
    return machine.run("unshare", "--mount", "sh", "-c", script)


may_mount = pytest.mark.skipif(
    not shutil.which("unshare")
    or subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0,
    reason="mounting a small disk needs root",
)


@may_mount
@pytest.mark.parametrize("folder", ["venvs", "build"])
def test_no_disk_space_to_begin_with(machine: Machine, tmp_path: Path, folder: str) -> None:
    if folder == "build":
        command = "bash -c 'source scripts/steps.sh; need_space 250 $SHOAL_BUILDS'"
    else:
        command = "make demo"
    said = complaint(in_small_disk(machine, tmp_path / folder, command))
    assert "MB are free in" in said and f"{tmp_path}/{folder}" in said
    assert "SHOAL_VENVS" in said and "SHOAL_BUILDS" in said


@may_mount
def test_disk_that_becomes_full(machine: Machine, tmp_path: Path) -> None:
    command = f"""bash -c 'source scripts/steps.sh
        step "filling the disk" dd if=/dev/zero of={tmp_path}/full/file bs=1M count=100'"""
    said = complaint(in_small_disk(machine, tmp_path / "full", command))
    assert said.startswith("No disk space left while filling the disk") and "TMPDIR" in said


def test_python_without_venv_and_headers(machine: Machine, tmp_path: Path) -> None:
    machine.lacks("apt*")
    bare = tmp_path / "bare-python"
    bare.write_text("#!/bin/sh\necho 3.12 0 0\n")
    bare.chmod(0o755)
    said = complaint(machine.run("scripts/system_packages", str(bare), "use"))
    assert "python3.12-dev" in said and "python3.12-venv" in said and "package manager" in said


def test_a_step_that_fails_for_another_reason_shows_what_it_printed(machine: Machine) -> None:
    done = machine.run(
        "bash", "-c", "source scripts/steps.sh; step work sh -c 'echo the reason; exit 3'"
    )
    assert done.returncode == 1
    assert "work" in done.stdout and "failed after" in done.stdout
    assert "the reason" in done.stderr


def test_a_step_that_succeeds_is_one_line_with_its_time(machine: Machine) -> None:
    done = machine.run("bash", "-c", "source scripts/steps.sh; step work echo not shown")
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.split()[0] == "work" and done.stdout.endswith(" s\n")
