# SPDX-License-Identifier: Apache-2.0
"""A C++ program outside of the tree finds shoal with find_package and talks with Python."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TREE = Path(__file__).resolve().parents[3]


def tool(name: str) -> str:
    """CMake and Ninja of this environment, else of the system."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name) or ""


def run(*command: str | Path) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, built as its CMakeLists says, against an installed shoal."""
    builds = Path(os.environ.get("SHOAL_BUILDS", TREE / "build"))
    build = builds / platform.python_version()
    cmake = tool("cmake")
    if not cmake or not (build / "libshoal_core.a").exists():
        pytest.skip("needs CMake and the build folder of this interpreter")
    folder = tmp_path_factory.mktemp("cpp")
    run(cmake, "--install", build, "--component", "cpp", "--prefix", folder / "installed")
    generator = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}"] if tool("ninja") else []
    run(cmake, "-S", TREE / "examples/cpp", "-B", folder / "build", *generator,
        f"-DCMAKE_PREFIX_PATH={folder / 'installed'}")  # fmt: skip
    run(cmake, "--build", folder / "build")
    return folder / "build" / "column_sums"


def test_a_cpp_program_sums_the_matrices_of_a_python_program(program: Path) -> None:
    pytest.importorskip("numpy")
    printed = run(sys.executable, TREE / "examples/cpp/column_sums.py", program)
    assert "2 matrices summed" in printed
    assert "sums are right" in printed


def test_a_cpp_program_says_what_is_wrong(program: Path) -> None:
    answer = subprocess.run([program, str(os.getppid())], capture_output=True, text=True)
    assert answer.returncode == 1
    assert "column_sums: " in answer.stderr
    assert subprocess.run([program], capture_output=True, check=False).returncode == 2
