# SPDX-License-Identifier: Apache-2.0
"""Main modules of fresh processes are run as `runpy.run_path` runs them, whatever kind of file they
are.
"""

from __future__ import annotations

import os
import py_compile
import runpy
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from shoal._runtime import _run_path

MODULE = """
import sys
VALUE = 6 * 7
NAMES = {name: globals()[name] for name in ("__name__", "__file__", "__package__", "__spec__")}
ARGV = list(sys.argv)
KNOWN = sys.modules[__name__].__dict__ is globals()
def annotated(x: undefined): ...
"""


def outcomes(file: Path) -> list[object]:
    """What the standard library's function and ours make of it."""
    found: list[object] = []
    for run in (runpy.run_path, _run_path.run_path):
        argv, main = list(sys.argv), sys.modules.get("__mp_main__")
        try:
            names = run(str(file), run_name="__mp_main__")
            # Functions are of either run; what they are called is the same.
            found.append({k: v for k, v in names.items() if not callable(v) and k[:3] != "__b"})
        except BaseException as error:
            found.append((type(error), str(error)))
        assert sys.argv == argv
        assert sys.modules.get("__mp_main__") is main
    return found


def test_a_source_file(tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text(MODULE.replace("def annotated(x: undefined): ...", ""))
    stock, ours = outcomes(file)
    assert stock == ours
    assert isinstance(ours, dict)
    assert ours["VALUE"] == 42
    assert ours["KNOWN"]
    assert ours["NAMES"]["__name__"] == "__mp_main__"


def test_it_is_not_compiled_as_part_of_this_file(tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text(MODULE)  # an annotation is evaluated: no `from __future__` of ours holds there
    stock, ours = outcomes(file)
    if sys.version_info >= (3, 14):
        assert stock == ours
    else:
        assert stock == ours == (NameError, "name 'undefined' is not defined")


@pytest.mark.parametrize(
    "source", ["VALUE = (", "raise ValueError('x')", "import sys; sys.exit(3)", "\0", "é = 'é'"]
)
def test_what_is_wrong_with_it_is_said_the_same_way(tmp_path: Path, source: str) -> None:
    file = tmp_path / "program.py"
    file.write_bytes(source.encode("latin-1" if "é" in source else "utf-8"))
    stock, ours = outcomes(file)
    assert stock == ours


def test_no_file(tmp_path: Path) -> None:
    stock, ours = outcomes(tmp_path / "none.py")
    assert stock == ours


def test_a_folder_a_zip_file_and_compiled_code(tmp_path: Path) -> None:
    source = tmp_path / "__main__.py"
    source.write_text("VALUE = __name__")
    archive = tmp_path / "archive.py"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(source, "__main__.py")
    compiled = tmp_path / "compiled.py"
    py_compile.compile(str(source), str(compiled))
    for path in (tmp_path, archive, compiled):
        stock, ours = outcomes(path)
        assert isinstance(stock, dict), (path, stock)
        assert isinstance(ours, dict), (path, ours)
        assert stock["VALUE"] == ours["VALUE"] == "__mp_main__"


def test_a_file_that_changed_after_it_was_kept(tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text("VALUE = 1")
    _run_path.keep(str(file))
    assert _run_path.run_path(str(file), None, "__mp_main__")["VALUE"] == 1
    file.write_text("VALUE = 22")
    assert _run_path.run_path(str(file), None, "__mp_main__")["VALUE"] == 22
    file.unlink()
    with pytest.raises(FileNotFoundError):
        _run_path.run_path(str(file), None, "__mp_main__")


def test_other_names_are_left_to_the_standard_library(tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text("VALUE = __name__, given")
    assert _run_path.run_path(str(file), {"given": 3}, "name")["VALUE"] == ("name", 3)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_import_neither_pkgutil_nor_typing_for_it(tmp_path: Path, method: str) -> None:
    file = tmp_path / "program.py"
    file.write_text(
        "import multiprocessing, sys\n"
        "def imported(name):\n"
        "    return name in sys.modules, __name__\n"
        "if __name__ == '__main__':\n"
        f"    with multiprocessing.get_context({method!r}).Pool(1) as pool:\n"
        "        print(pool.map(imported, ['pkgutil', 'typing']))\n"
    )
    environment = {**os.environ, "SHOAL_RUN": "1"}
    done = subprocess.run(
        [sys.executable, str(file)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    if "typing" in _imported_at_start():
        pytest.skip("this interpreter imports typing at its start")
    assert done.stdout == "[(False, '__mp_main__'), (False, '__mp_main__')]\n"


def _imported_at_start() -> str:
    command = [sys.executable, "-c", "import sys; print(*sys.modules)"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
