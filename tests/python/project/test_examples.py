# SPDX-License-Identifier: Apache-2.0
"""The examples are ordinary programs: same output on the standard library and on shoal."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
PROGRAMS = sorted(path.name for path in EXAMPLES.glob("*.py"))


def run(name: str, *arguments: str, on_shoal: bool = False) -> str:
    environment = {**os.environ, "SHOAL_RUN": "1" if on_shoal else ""}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Sources, good and bad."""
    root = tmp_path / "tree"
    (root / "package" / "__pycache__").mkdir(parents=True)
    for number in range(20):
        text = f"def function_{number}(argument):\n    # word\n    return 'text' * {number}\n"
        (root / "package" / f"module_{number}.py").write_text(text)
    (root / "empty.py").write_text("")
    (root / "latin.py").write_bytes(b"# -*- coding: latin-1 -*-\nname = '\xe4\xf6\xfc'\n")
    (root / "undecodable.py").write_bytes(b"name = '\xe4\xf6\xfc'\n")
    (root / "no_such_codec.py").write_bytes(b"# -*- coding: nonsense -*-\n")
    (root / "broken.py").write_text("def f(:\n")
    (root / "unfinished.py").write_text("x = (1,\n")
    (root / "zero.py").write_bytes(b"x = 1\0\n")
    (root / "deep.py").write_text("x = " + "(" * 5_000 + ")" * 5_000 + "\n")
    (root / "dangling.py").symlink_to(root / "nowhere.py")
    (root / "package" / "__pycache__" / "cached.py").write_text("x = 1\n")
    (root / "notes.txt").write_text("not a source")
    return root


@pytest.mark.parametrize("on_shoal", [False, True])
def test_corpus_counts_every_file_whatever_is_in_it(tree: Path, on_shoal: bool) -> None:
    output = run("corpus.py", "--processes", "2", str(tree), on_shoal=on_shoal)
    assert output.startswith("29 files of ")
    assert re.search(r"files parsed +22\n", output)
    # from 3.14 on tokenize finds the encoding of a file with a NUL bad
    assert re.search(rf"files bad encoding +{2 + (sys.version_info >= (3, 14))}\n", output)
    assert re.search(r"files unreadable +1\n", output)
    assert re.search(r"function +20   in +20 files", output)


def test_corpus_prints_the_same_for_any_number_of_workers_and_both_libraries(tree: Path) -> None:
    outputs = {
        run("corpus.py", "--top", "3", "--processes", processes, str(tree), on_shoal=on_shoal)
        for processes in ("1", "2", "3")
        for on_shoal in (False, True)
    }
    assert len(outputs) == 1, outputs


def test_corpus_refuses_what_is_no_folder(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "corpus.py"), str(tmp_path / "none")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "not a folder" in done.stderr


@pytest.mark.parametrize("on_shoal", [False, True])
def test_julia_has_the_published_checksum(on_shoal: bool) -> None:
    assert "33,219,980 iterations" in run("julia.py", on_shoal=on_shoal)


@pytest.mark.parametrize("on_shoal", [False, True])
def test_primes_are_counted_right_for_every_chunk_size(on_shoal: bool) -> None:
    output = run("primes.py", "--numbers", "10000", "7", "500", "10000", on_shoal=on_shoal)
    assert output == "1,229 primes below 10,000\n"


def test_pi_does_not_depend_on_the_number_of_workers() -> None:
    outputs = {
        run("pi.py", "--darts", "64000", "--processes", processes, on_shoal=on_shoal)
        for processes in ("1", "2")
        for on_shoal in (False, True)
    }
    assert len(outputs) == 1, outputs


def test_corpus_reads_a_part_of_the_tree(tree: Path) -> None:
    outputs = {
        run("corpus.py", "--files", "5", str(tree), on_shoal=on_shoal) for on_shoal in (False, True)
    }
    (output,) = outputs
    assert output.startswith("5 files of ")


@pytest.mark.parametrize(
    "command",
    [
        ("queue_primes.py", "--numbers", "200"),
        ("log_search.py", "--megabytes", "2"),
        ("collatz.py", "--numbers", "500"),
    ],
    ids=lambda command: command[0],
)
def test_workers_give_what_a_loop_gives_under_both_libraries(command: tuple[str, ...]) -> None:
    outputs = {
        run(*command, "--serial"),
        run(*command),
        run(*command, on_shoal=True),
    }
    assert len(outputs) == 1, outputs


def test_a_killed_worker_costs_its_task_and_nothing_else() -> None:
    output = run("killed_worker.py", on_shoal=True)
    assert output == "task 7 failed: WorkerDied\n99 tasks done, 1 failed\n"


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLES.parent / "scripts" / "demo.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=110,
    )


def test_demo_compares_every_example_and_says_which_side_hangs() -> None:
    done = demo("--quick", "--rounds", "1", "--json")
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)["rows"]}
    assert rows["a kill"]["seconds"]["standard library"] is None
    assert rows["a kill"]["said"] == "99 tasks done, 1 failed"
    assert all(row["ratio"] for name, row in rows.items() if name != "a kill")
    assert "queue_primes.py    no workers" in done.stderr


@pytest.mark.parametrize(
    "arguments, said",
    [(("--rounds", "0"), "must be at least 1"), (("--only", "nothing"), "there are: corpus")],
)
def test_demo_says_which_argument_is_wrong(arguments: tuple[str, ...], said: str) -> None:
    done = demo(*arguments)
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.parametrize("name", PROGRAMS)
def test_examples_import_nothing_but_the_standard_library(name: str) -> None:
    source = (EXAMPLES / name).read_text()
    imported = set(re.findall(r"^(?:import|from) (\w+)", source, re.MULTILINE))
    assert imported <= set(sys.stdlib_module_names)
    assert 'if __name__ == "__main__":' in source
