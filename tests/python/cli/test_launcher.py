# SPDX-License-Identifier: Apache-2.0
"""`shoal run program` is `python program`: the launcher adds nothing and hides nothing, finds the
interpreter that it belongs to wherever it was installed, and says what to do where there is none.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent.resolve()  # as the launcher names it
LAUNCHER = BIN / "shoal"
PYTHON_NAME = f"python{sys.version_info[0]}.{sys.version_info[1]}"
PACKAGES = f"lib/{PYTHON_NAME}/site-packages"
PLAIN = {k: v for k, v in os.environ.items() if not k.startswith("SHOAL_")}

STATE = """
import os, signal, sys
hidden = ("SHOAL_RUN", "LINES", "COLUMNS")
environment = {k: v for k, v in os.environb.items() if k.decode() not in hidden}
print(sys.argv, sys.orig_argv[1:], sys.executable, sys.flags, __name__, sys.path)
print(sorted(environment.items()))
print(os.getcwd(), sorted(os.listdir("/proc/self/fd")), os.getppid())
print(signal.pthread_sigmask(signal.SIG_BLOCK, []), signal.getsignal(signal.SIGINT))
print(sys.stdin.read())
"""


def run(*command: str | Path, **keywords) -> subprocess.CompletedProcess[str]:
    keywords = {"capture_output": True, "text": True, "timeout": 100, "env": PLAIN, **keywords}
    return subprocess.run([str(part) for part in command], **keywords)


def same_as_python(*arguments: str | Path, **keywords) -> subprocess.CompletedProcess[str]:
    """Run it plainly and by the launcher: exit status and output must agree."""
    plain = run(BIN / "python", *arguments, **keywords)
    launched = run(LAUNCHER, "run", *arguments, **keywords)
    assert launched.returncode == plain.returncode
    assert (launched.stdout, launched.stderr) == (plain.stdout, plain.stderr)
    return launched


def test_the_command_is_compiled() -> None:
    assert LAUNCHER.read_bytes()[:4] == b"\x7fELF"


# ---- Nothing added, nothing hidden ---------------------------------------------------------------


def test_a_program_sees_what_it_sees_under_python(tmp_path: Path) -> None:
    program = tmp_path / "a program.py"
    program.write_text(STATE)
    odd = {b"A.B": b"1", b"not-a-name": b"2", b"BYTES": b"\xff\xfe", b"EMPTY": b"", b"NL": b"a\nb"}
    environment = {**{os.fsencode(k): os.fsencode(v) for k, v in PLAIN.items()}, **odd}

    def ignore_and_block() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])

    descriptor = os.open(program, os.O_RDONLY)
    try:
        same_as_python(
            program, "--explain", "", "-c", "a b", "\u00e4",
            cwd=tmp_path, env=environment, input="some\ninput", preexec_fn=ignore_and_block,
            pass_fds=[descriptor],
        )  # fmt: skip
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    "arguments",
    [
        ["-c", STATE, "x", "-c"],
        ["-c" + STATE, "x"],
        ["-m", "json.tool", "--help"],
        ["-mjson.tool", "--help"],
        ["-m", "no_such_module"],
        ["-", "argument"],
        ["", "argument"],
        ["-c", "import os; os.kill(os.getpid(), 9)"],
        ["-c", "raise SystemExit(77)"],
        ["-c", "raise SystemExit('text')"],
        ["-c", "1/0"],
        ["-c", "not python"],
    ],
)
def test_the_ways_to_name_a_program_are_pythons(arguments: list[str]) -> None:
    same_as_python(*arguments, input="print('from stdin')")


def test_the_process_stays_the_same_one() -> None:
    code = "import os; print(os.getpid(), os.environ['SHOAL_RUN'], os.environ.get('SHOAL_HEAL'))"
    process = subprocess.Popen(
        [LAUNCHER, "run", "--heal", "-c", code], stdout=subprocess.PIPE, text=True
    )
    assert process.communicate()[0] == f"{process.pid} 1 1\n"


def test_options_of_an_outer_run_are_not_those_of_an_inner_one() -> None:
    code = "import os; print([k for k in os.environ if k.startswith('SHOAL_')])"
    outer = {**PLAIN, "SHOAL_HEAL": "1", "SHOAL_EXPLAIN": "1"}
    assert run(LAUNCHER, "run", "-c", code, env=outer).stdout == "['SHOAL_RUN']\n"


def test_explain_reports_on_the_program() -> None:
    assert "nothing to swap" in run(LAUNCHER, "run", "--explain", "-c", "pass").stderr


# ---- Bad input: the interpreter's own words and exit codes ---------------------------------------


def write_zip(path: Path, member: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, "import sys; print(sys.argv, __name__); sys.exit(5)")
    return path


def write_folder(path: Path, member: str) -> Path:
    path.mkdir()
    (path / member).write_text("import sys; print(sys.argv, __name__); sys.exit(5)")
    return path


BAD: dict[str, tuple[int, Callable[[Path], Path]]] = {
    "missing": (2, lambda folder: folder / "none.py"),
    "in a missing folder": (2, lambda folder: folder / "none" / "x.py"),
    "below a file": (2, lambda folder: Path(__file__) / "x.py"),
    "a folder": (1, lambda folder: write_folder(folder / "app", "other.py")),
    "a folder with __main__.py": (5, lambda folder: write_folder(folder / "app", "__main__.py")),
    "a zip": (1, lambda folder: write_zip(folder / "app.zip", "other.py")),
    "a zip with __main__.py": (5, lambda folder: write_zip(folder / "app.zip", "__main__.py")),
    "a name that is too long": (2, lambda folder: folder / ("x" * 300)),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_program_is_pythons_own_error(case: str, tmp_path: Path) -> None:
    status, make = BAD[case]
    done = same_as_python(make(tmp_path), "argument")
    assert done.returncode == status
    assert len((done.stderr or "one\n").splitlines()) == 1


def test_a_program_that_may_not_be_read_is_pythons_own_error(tmp_path: Path) -> None:
    program = tmp_path / "secret.py"
    program.write_text("print(1)")
    program.chmod(0)
    done = same_as_python(program)
    assert done.returncode == (2 if os.geteuid() else 0)  # root reads it all the same


@pytest.mark.parametrize(
    "arguments",
    [["run"], ["run", "-m"], ["run", "-c"], ["run", "--heal"], ["run", "--no", "x.py"],
     ["run", "-x"], ["run", "--expl", "-c", "pass"], ["nonsense"], ["compare"]],
)  # fmt: skip
def test_wrong_usage_is_one_line_that_says_what_to_do(arguments: list[str]) -> None:
    done = run(LAUNCHER, *arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("shoal") and done.stderr.count("\n") == 1
    assert "--help'" in done.stderr


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--version"], ["run", "--help"], ["run"]])
def test_other_commands_are_those_of_the_module(arguments: list[str]) -> None:
    launched, module = run(LAUNCHER, *arguments), run(BIN / "python", "-m", "shoal", *arguments)
    assert launched.returncode == module.returncode
    assert (launched.stdout, launched.stderr) == (module.stdout, module.stderr)


# ---- Wherever it was installed -------------------------------------------------------------------

SCRIPT = "import sys\nsys.path.insert(0, {tree!r})\nfrom shoal.cli import main\nsys.exit(main())\n"
TREE = str(Path(__file__).resolve().parents[3] / "python")
WHERE = "import sys, os; print(sys.prefix, os.environ.get('SHOAL_RUN'))"


def add_command(folder: Path, first_lines: str) -> Path:
    """What installing puts into a folder for commands."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "shoal-python"
    script.write_text(first_lines + SCRIPT.format(tree=TREE))
    script.chmod(0o755)
    return Path(shutil.copy2(LAUNCHER, folder / "shoal"))


def make_environment(folder: Path, start_up_file: bool = True) -> Path:
    """A virtual environment with the command in it; gives the command."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    run(sys.executable, "-m", "venv", "--without-pip", folder).check_returncode()
    if start_up_file:
        (folder / PACKAGES / "shoal_boot.pth").write_text("")
    return add_command(folder / "bin", through_shell(folder / "bin" / "python"))


def through_shell(python: Path) -> str:
    """As installers name an interpreter whose path has blanks or is long."""
    return f"#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''\n"


def prefix_seen_by(command: Path | str, **keywords) -> str:
    done = run(command, "run", "-c", WHERE, **keywords)
    assert done.returncode == 0, done.stderr
    prefix, _, variable = done.stdout.strip().rpartition(" ")
    assert variable == "1"
    return prefix


@pytest.mark.parametrize("name", ["venv", "with some blanks", "long" * 50])
def test_a_virtual_environment_uses_its_own_interpreter(tmp_path: Path, name: str) -> None:
    command = make_environment(tmp_path / name)
    assert prefix_seen_by(command) == str(tmp_path / name)
    assert prefix_seen_by("./shoal", cwd=command.parent) == str(tmp_path / name)
    path = {**PLAIN, "PATH": f"{command.parent}:{PLAIN['PATH']}"}
    assert prefix_seen_by("shoal", env=path) == str(tmp_path / name)


def test_a_moved_environment_uses_its_own_interpreter(tmp_path: Path) -> None:
    make_environment(tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")
    assert prefix_seen_by(tmp_path / "new/bin/shoal") == str(tmp_path / "new")


def test_a_link_to_the_command_is_the_command(tmp_path: Path) -> None:
    command = make_environment(tmp_path / "venv")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/shoal").symlink_to(command)
    assert prefix_seen_by(tmp_path / "elsewhere/shoal") == str(tmp_path / "venv")


def test_a_folder_without_an_interpreter_uses_the_recorded_one(tmp_path: Path) -> None:
    """User installs, --target, --prefix."""
    make_environment(tmp_path / "a venv")
    python = tmp_path / "a venv/bin/python"
    for folder, lines in (("blanks", through_shell(python)), ("plain", f"#!{sys.executable}\n")):
        command = add_command(tmp_path / folder / "bin", lines)
        expected = tmp_path / "a venv" if folder == "blanks" else sys.prefix
        assert prefix_seen_by(command) == str(expected)


def test_the_interpreter_is_started_once(tmp_path: Path) -> None:
    command = make_environment(tmp_path / "venv")
    (command.parent / "shoal-python").write_text("raise SystemExit('the slow way')")
    assert prefix_seen_by(command) == str(tmp_path / "venv")
    assert run(command, "info").stderr == "the slow way\n"


def test_a_start_up_file_in_an_unusual_folder_is_found_by_python(tmp_path: Path) -> None:
    command = make_environment(tmp_path / "venv", start_up_file=False)
    (tmp_path / "venv/pyvenv.cfg").write_text(
        f"home = {Path(sys.base_exec_prefix) / 'bin'}\ninclude-system-site-packages = true\n"
    )
    user = tmp_path / "user" / PACKAGES
    user.mkdir(parents=True)
    (user / "shoal_boot.pth").write_text("")
    environment = {**PLAIN, "PYTHONUSERBASE": str(tmp_path / "user")}
    assert prefix_seen_by(command, env=environment) == str(tmp_path / "venv")


def test_without_a_start_up_file_one_line_says_what_to_do(tmp_path: Path) -> None:
    command = make_environment(tmp_path / "venv", start_up_file=False)
    done = run(command, "run", "-c", "print(1)")
    assert done.returncode == 1 and done.stdout == ""
    assert "shoal_boot.pth" in done.stderr and "pip install" in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_an_interpreter_one_line_says_what_to_do(tmp_path: Path) -> None:
    command = add_command(tmp_path / "bin", "#!/nowhere/python\n")
    done = run(command, "run", "-c", "print(1)")
    assert done.returncode == 1 and done.stdout == ""
    assert "gone" in done.stderr and "pip install" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "lines", ["", "#", "#!", "#!/bin/sh\n'''exec' ", "#!relative/python\n", "#!/bin\n", "\0" * 9000]
)
def test_a_damaged_script_is_no_interpreter(tmp_path: Path, lines: str) -> None:
    command = add_command(tmp_path / "bin", lines)
    done = run(command, "run", "-c", "print(1)")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
