# SPDX-License-Identifier: Apache-2.0
"""The wheel, built from the source distribution and installed out of the tree's reach, works."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

TREE = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.install, pytest.mark.timeout(1200)]

PROGRAM = """
import sys
import shoal

def square(x):
    return x * x

with shoal.Pool(2) as pool:
    assert pool.map(square, range(100)) == [x * x for x in range(100)]
with shoal.Executor(max_workers=2) as executor:
    assert executor.submit(lambda: 6 * 7).result() == 42
print(shoal.__file__)
"""


def run(*command: str | Path, **keywords: object) -> str:
    done = subprocess.run(  # type: ignore[call-overload]
        [str(part) for part in command], capture_output=True, text=True, **keywords
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return str(done.stdout)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, made from a copy of the tree that has only what git would ship."""
    folder = tmp_path_factory.mktemp("source")
    copy = folder / "tree"
    made = shutil.ignore_patterns(".venv*", ".git", "*.so", "__pycache__")
    made_in_root = shutil.ignore_patterns("build", "dist", "wheelhouse")  # scripts/build is source

    def ignore(where: str, names: list[str]) -> set[str]:
        return made(where, names) | (made_in_root(where, names) if Path(where) == TREE else set())

    shutil.copytree(TREE, copy, ignore=ignore)
    make = "import scikit_build_core.build as b; print(b.build_sdist('..'))"
    run(sys.executable, "-c", make, cwd=copy)
    shutil.rmtree(copy)
    (found,) = folder.glob("shoal-*.tar.gz")
    return found


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the source distribution alone: the tree is elsewhere, and there is no git."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, source)
    (found,) = folder.glob("shoal-*.whl")
    return found


@pytest.fixture(scope="module")
def clean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with nothing but the wheel and its dependencies; gives its bin folder."""
    venv = tmp_path_factory.mktemp("clean") / "venv"
    run(sys.executable, "-m", "venv", venv)
    run(venv / "bin/python", "-m", "pip", "install", "-q", wheel)
    return venv / "bin"


def bare_environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "SHOAL"))}


def test_wheel_has_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "shoal/py.typed" in names
    assert "shoal/_core.pyi" in names
    assert any(n.startswith("shoal/_core.cpython") for n in names)
    assert any(n.endswith(".data/scripts/shoal") for n in names)
    assert not [n for n in names if "_core_testing" in n or n.startswith(("src/", "tests/"))]


def test_source_distribution_has_what_a_build_and_its_tests_need(source: Path) -> None:
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"CMakeLists.txt", "cmake/core.cmake", "LICENSE", "README.md", "Makefile"}
    assert wanted | {"tests/conftest.py", "scripts/build", "examples/corpus.py"} <= names
    built = [n for n in names if n.endswith((".so", ".pyc")) or n.startswith((".venv", "build/"))]
    assert not built


def test_everything_works_in_an_empty_environment(clean: Path, tmp_path: Path) -> None:
    program = shutil.copy(TREE / "tests" / "install" / "smoke.py", tmp_path)
    out = run(clean / "python", "-I", program, cwd=tmp_path, env=bare_environment(), timeout=300)
    assert "works on CPython" in out


def test_program_runs_on_what_is_installed_alone(clean: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    out = run(clean / "python", program, cwd=tmp_path, env=bare_environment(), timeout=120)
    assert str(TREE) not in out and "site-packages" in out


def test_the_command_is_the_launcher_beside_its_python_half(clean: Path) -> None:
    assert (clean / "shoal").read_bytes()[:4] == b"\x7fELF"
    assert str(clean) in (clean / "shoal-python").read_text().splitlines()[0]
    assert run(clean / "shoal", "--version") == run(clean / "shoal-python", "--version")


def test_command_line_answers(clean: Path, tmp_path: Path) -> None:
    out = run(clean / "shoal", "--help", cwd=tmp_path, env=bare_environment(), timeout=60)
    assert "run" in out and "compare" in out


def test_unmodified_program_runs_on_the_installed_shoal(clean: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import multiprocessing as mp\n"
        "def f(x): return x + 1\n"
        "if __name__ == '__main__':\n"
        "    with mp.Pool(2) as pool:\n"
        "        print(type(pool).__module__, sum(pool.map(f, range(1000))))\n"
    )
    out = run(clean / "shoal", "run", program, cwd=tmp_path, env=bare_environment(), timeout=120)
    assert out.split()[0].startswith("shoal") and out.split()[1] == "500500"
