# SPDX-License-Identifier: Apache-2.0
"""Files beside the program that are named as modules of the standard library.

The folder of each program here has a file for *every* module of the standard library that the same
program does not import when it runs without shoal. Each file says that it was run, and raises. What
shoal needs beyond that must come from the standard library; what the program itself imports later
must be its own file.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

METHODS = ["fork", "forkserver", "spawn"]

DROP_IN = """
    import multiprocessing, os, sys
    from concurrent.futures import ProcessPoolExecutor

    def square(x):
        return x * x

    def fail(x):
        raise ValueError(x)

    def send(queue, lock, value):
        with lock:
            queue.put(square(value))

    def main(method):
        context = multiprocessing.get_context(method)
        with context.Pool(2) as pool:
            print(pool.map(square, range(20)), pool.apply(len, ["abc"]))
            try:
                pool.apply(fail, (1,))
            except ValueError as error:
                print(repr(error))
        with ProcessPoolExecutor(2, mp_context=context) as executor:
            print(list(executor.map(square, range(20))))
            print(repr(executor.submit(fail, 2).exception()))
        queue, lock, value = context.Queue(), context.Lock(), context.Value("i", 3)
        process = context.Process(target=send, args=(queue, lock, 7))
        process.start()
        print(queue.get(), value.value)
        process.join()
        print(process.exitcode)
        {after}

    if __name__ == "__main__":
        main(sys.argv[1])
"""
NATIVE = """
    import sys
    import shoal

    def square(x):
        return x * x

    def fail(x):
        raise ValueError(x)

    class Odd:
        pass

    if __name__ == "__main__":
        with shoal.Pool(2, start=sys.argv[1]) as pool:
            print(pool.map(square, range(20)), pool.map(lambda x: x + 1, [1, 2]))
            print(type(pool.apply(lambda x: x, (Odd(),))).__name__)
            try:
                pool.apply(fail, (1,))
            except ValueError as error:
                print(repr(error))
        with shoal.Executor(2) as executor:
            print(executor.submit(square, 3).result())
        queue, lock, shared = shoal.Queue(), shoal.Lock(), shoal.Dict()
        with lock:
            queue.put(1)
            shared["a"] = queue.get()
        try:
            queue.get_nowait()
        except Exception as error:
            print(type(error).__name__, shared["a"])
"""
SHADOW = """
import os
with open({marker!r}, "a") as file:
    file.write({name!r} + " ")
raise ImportError("the user's file was imported: " + {name!r})
"""


def write_program(folder: Path, source: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "program.py"
    path.write_text(textwrap.dedent(source))
    return path


def run(
    program: Path, *arguments: str, options: tuple[str, ...] = (), **variables: str
) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("SHOAL_", "PYTHON"))}
    if "SHOAL_TEST_CORE" in os.environ:
        environment["SHOAL_TEST_CORE"] = os.environ["SHOAL_TEST_CORE"]
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    return subprocess.run(
        [sys.executable, *options, program, *arguments],
        env={**environment, **variables},
        cwd=program.parent,
        capture_output=True,
        text=True,
        timeout=25,
    )


def there_at_start() -> set[str]:
    """What an interpreter has imported before it runs a program."""
    code = "import sys; print(*{n.partition('.')[0] for n in sys.modules})"
    return set(subprocess.check_output([sys.executable, "-c", code], text=True).split())


def shadow(folder: Path, names: set[str]) -> Path:
    """A file for each name; gives the file in which they say that they were run."""
    marker = folder.parent / "imported"
    for name in names:
        (folder / f"{name}.py").write_text(SHADOW.format(marker=str(marker), name=name))
    return marker


def shadow_all_but(folder: Path, wanted: set[str]) -> Path:
    never = {"__future__", "idlelib", "antigravity", "this"}
    return shadow(folder, set(sys.stdlib_module_names) - wanted - there_at_start() - never)


def needs_of_the_standard_library(program: Path, method: str) -> set[str]:
    """What the program and its children import, or try to import, without shoal."""
    done = run(program, method, options=("-X", "importtime"))
    done.check_returncode()
    return {name.partition(".")[0] for name in re.findall(r"\|\s+([\w.]+)$", done.stderr, re.M)}


@pytest.mark.parametrize("method", METHODS)
def test_a_program_runs_beside_files_that_only_shoal_would_import(
    tmp_path: Path, method: str
) -> None:
    program = write_program(tmp_path / "app", DROP_IN.format(after="pass"))
    wanted = needs_of_the_standard_library(program, method)
    marker = shadow_all_but(program.parent, wanted)
    plain = run(program, method)
    plain.check_returncode()
    under_shoal = run(program, method, SHOAL_RUN="1")
    assert under_shoal.stdout == plain.stdout, under_shoal.stderr
    assert (under_shoal.returncode, under_shoal.stderr) == (0, "")
    assert not marker.exists(), marker.read_text()
    assert not {"opcode", "resource", "secrets"} & wanted  # else this test shows little


@pytest.mark.parametrize("start", ["zygote", "fork", "spawn"])
def test_shoals_own_pools_run_beside_files_that_only_they_would_import(
    tmp_path: Path, start: str
) -> None:
    stock = write_program(tmp_path / "stock", DROP_IN.format(after="pass"))
    wanted = needs_of_the_standard_library(stock, "fork" if start == "fork" else "spawn")
    program = write_program(tmp_path / "app", NATIVE)
    alone = run(program, start)
    alone.check_returncode()
    marker = shadow_all_but(program.parent, wanted)
    done = run(program, start)
    assert (done.returncode, done.stdout) == (0, alone.stdout), done.stderr
    assert not marker.exists(), marker.read_text()


@pytest.mark.parametrize("method", METHODS)
def test_the_programs_own_file_is_what_it_imports_afterwards(tmp_path: Path, method: str) -> None:
    after = "import opcode, resource, secrets; print(opcode.MINE, resource.MINE, secrets.MINE)"
    program = write_program(tmp_path / "app", DROP_IN.format(after=after))
    for name in ("opcode", "resource", "secrets"):
        (program.parent / f"{name}.py").write_text(f"MINE = 'my {name}'\n")
    done = run(program, method, SHOAL_RUN="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "my opcode my resource my secrets"


@pytest.mark.parametrize("method", METHODS)
def test_a_file_that_the_program_imported_before_is_not_used_by_shoal(
    tmp_path: Path, method: str
) -> None:
    names = "opcode, resource, secrets"
    source = f"import {names}\n" + textwrap.dedent(
        DROP_IN.format(after="print(opcode.MINE, resource.MINE, secrets.MINE)")
    )
    program = write_program(tmp_path / "app", source)
    for name in names.split(", "):
        (program.parent / f"{name}.py").write_text(f"MINE = 'my {name}'\n")
    done = run(program, method, SHOAL_RUN="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "my opcode my resource my secrets"


def test_a_class_in_such_a_file_travels(tmp_path: Path) -> None:
    """What the user sends is found as the user would find it, whatever the file is called."""
    source = """
        import multiprocessing

        def make(number):
            from opcode import Thing
            return Thing(number)

        if __name__ == "__main__":
            with multiprocessing.Pool(2) as pool:
                print([thing.number for thing in pool.map(make, [1, 2])])
                from opcode import Thing, number_of
                print(pool.map(number_of, [Thing(3), Thing(4)]))
    """
    program = write_program(tmp_path / "app", source)
    (program.parent / "opcode.py").write_text(
        "class Thing:\n    def __init__(self, number): self.number = number\n"
        "def number_of(thing): return thing.number\n"
    )
    assert run(program, SHOAL_RUN="1").stdout == run(program).stdout == "[1, 2]\n[3, 4]\n"


def test_a_folder_named_as_a_module_is_none(tmp_path: Path) -> None:
    """A folder without `__init__.py` takes no module's place: `logging` is one and the same."""
    source = """
        import multiprocessing, sys
        import shoal
        if __name__ == "__main__":
            with shoal.Pool(1) as pool:
                pool.apply(abs, (-1,))
            print(sorted(set(sys.modules) & {"ast", "opcode"}))
            import ast, opcode
            print(ast.__file__ != opcode.__file__, "app" in ast.__file__)
    """
    program = write_program(tmp_path / "app", source)
    for name in ("ast", "opcode", "logging", "queue"):
        (program.parent / name).mkdir()
    done = run(program)
    assert done.stdout.splitlines()[-1] == "True False", done.stderr


@pytest.mark.parametrize("name", ["numpy", "cloudpickle", "joblib", "random", "queue"])
def test_files_named_as_packages_that_shoal_knows(tmp_path: Path, name: str) -> None:
    """A module of the user that happens to have a famous name is just a module."""
    source = f"""
        import multiprocessing
        import {name}

        def square(x):
            return x * x, {name}.MINE

        if __name__ == "__main__":
            with multiprocessing.Pool(2) as pool:
                print(pool.map(square, [1, 2]))
    """
    program = write_program(tmp_path / "app", source)
    (program.parent / f"{name}.py").write_text("MINE = 1\n")
    plain, under_shoal = run(program), run(program, SHOAL_RUN="1")
    if plain.returncode == 0:
        assert under_shoal.stdout == plain.stdout, under_shoal.stderr
    else:
        assert name in ("random", "queue")  # the standard library itself takes the user's file


def test_the_command_runs_in_a_folder_with_such_files(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    # runpy, which `-m` needs before shoal is there, takes these from the current folder itself.
    of_runpy = {"importlib", "io", "os", "pkgutil", "sys", "types", "typing", "functools", "re",
                "collections", "contextlib", "warnings", "weakref", "abc", "copyreg", "enum",
                "keyword", "operator", "reprlib", "zipimport", "runpy", "threading"}  # fmt: skip
    marker = shadow_all_but(tmp_path / "app", of_runpy)
    command = [sys.executable, "-m", "shoal", "run", "-c", "print(1)"]
    done = subprocess.run(command, cwd=tmp_path / "app", capture_output=True)
    assert (done.returncode, done.stdout) == (0, b"1\n"), done.stderr
    assert not marker.exists(), marker.read_text()
