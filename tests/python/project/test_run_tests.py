# SPDX-License-Identifier: Apache-2.0
"""The runner of `make test`: it counts what its pytest processes say, and trusts no silence."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

RUNNER = Path(__file__).resolve().parents[3] / "scripts" / "run_tests.py"
GOOD = """
import os, sys
def test_one(): os.write(2, b"noise of a good test\\n")
def test_two(): pass
"""
BAD = "def test_three(): assert 1 == 2, 'the reason'\n"
KILLED = "import os\ndef test_four(): os.kill(os.getpid(), 9)\n"
SKIPPED = "import pytest\n@pytest.mark.skip(reason='not today')\ndef test_five(): pass\n"
ALONE = """
import os, pathlib, pytest
pytestmark = pytest.mark.alone
def test_six(): assert not list(pathlib.Path(__file__).parent.glob("*.running"))
"""
BESIDE = """
import pathlib
def test_seven(tmp_path):
    mark = pathlib.Path(__file__).with_suffix(".running")
    mark.touch()
    mark.unlink()
"""


def run(folder: Path, **files: str) -> subprocess.CompletedProcess[str]:
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = alone\naddopts = -ra\n")
    for name, text in files.items():
        (folder / f"test_{name}.py").write_text(text)
    return subprocess.run(
        [sys.executable, str(RUNNER), "--jobs", "2", str(folder)],
        capture_output=True,
        text=True,
        timeout=110,
    )


def test_good_files_are_a_line_each_and_what_they_print_is_not_shown(tmp_path: Path) -> None:
    done = run(tmp_path, good=GOOD, skipped=SKIPPED)
    assert done.returncode == 0, done.stdout
    assert "test_good.py" in done.stdout and "noise" not in done.stdout
    assert "skipped 1: not today" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("2 passed, 1 skipped in ")


def test_a_failure_is_shown_whole_and_named_at_the_end(tmp_path: Path) -> None:
    done = run(tmp_path, good=GOOD, bad=BAD)
    assert done.returncode == 1
    assert "the reason" in done.stdout and "noise" not in done.stdout
    assert any(
        line.startswith("FAILED") and "test_three" in line for line in done.stdout.splitlines()[-3:]
    )
    assert done.stdout.splitlines()[-1].startswith("1 failed, 2 passed in ")


def test_a_pytest_that_dies_is_a_failure(tmp_path: Path) -> None:
    done = run(tmp_path, good=GOOD, killed=KILLED)
    assert done.returncode == 1
    assert f"exit status {-signal.SIGKILL}" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("1 errors, 2 passed in ")


def test_no_tests_at_all_is_a_failure(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 1
    assert "no tests ran" in done.stdout


def test_files_that_want_to_be_alone_come_last(tmp_path: Path) -> None:
    done = run(tmp_path, alone=ALONE, beside=BESIDE, good=GOOD)
    assert done.returncode == 0, done.stdout
    order = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("[")]
    assert order[-1].endswith("test_alone.py") and len(order) == 3


def test_a_path_that_does_not_exist_is_named(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(RUNNER), str(tmp_path / "nowhere")], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert f"no such file or folder: {tmp_path}/nowhere" in done.stderr


def test_shared_memory_is_not_seen_by_a_file_that_runs_beside(tmp_path: Path) -> None:
    """Each of two files makes the same name, which must not be there before."""
    text = (
        "import os\ndef test_eight():\n"
        "    fd = os.open('/dev/shm/shoal-test-run-tests', os.O_CREAT | os.O_EXCL)\n"
        "    os.close(fd)\n    os.unlink('/dev/shm/shoal-test-run-tests')\n"
    )
    done = run(tmp_path, first=text, second=text)
    assert done.returncode == 0, done.stdout
