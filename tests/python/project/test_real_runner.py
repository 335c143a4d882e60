# SPDX-License-Identifier: Apache-2.0
"""The runner of bench/real: what it runs, what it calls a fault. Its cases need no packages."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

TREE = Path(__file__).resolve().parents[3]
REAL = TREE / "bench" / "real"


def runner(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REAL / "run.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_two_cases_of_the_standard_library_print_the_same_on_both_sides(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    done = runner("--quick", "--only", "compileall,digests", "--json", results)
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(results.read_text())
    assert {"commit", "cpus", "python", "load"} <= set(document["machine"])
    assert [case["case"] for case in document["cases"]] == ["compileall", "digests"]
    for case in document["cases"]:
        assert case["problems"] == [] and case["ratio"] > 0
        for side in ("stdlib", "shoal"):
            taken = case["sides"][side]
            assert len(taken["runs"]) == 2, "one with memory watched, one timed"
            assert taken["peak_pss_bytes"] > 0 and taken["parent_peak_rss_bytes"] > 0


def test_list_names_every_case_once_and_only_a_chosen_group() -> None:
    names = [line.split()[0] for line in runner("--list").stdout.splitlines()]
    assert len(names) == len(set(names)) and {"compileall", "pylint", "grid_search"} <= set(names)
    groups = [line.split()[1] for line in runner("--list", "--group", "torch").stdout.splitlines()]
    assert set(groups) == {"torch"}


def test_a_case_that_does_not_exist_is_an_error_that_says_where_the_names_are() -> None:
    done = runner("--only", "nonsense")
    assert done.returncode == 2
    assert "'nonsense'" in done.stderr and "--list" in done.stderr


def in_a_process_of_its_own(check: str) -> None:
    """The runner becomes the parent of orphans and reaps all it has: not in the tests' process."""
    program = f"import sys; sys.path.insert(0, {str(REAL)!r})\nfrom pathlib import Path\n" + check
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_process_that_outlives_its_program_is_named_and_ended() -> None:
    in_a_process_of_its_own(
        """
import running
running.PATIENCE_S = 0.2
running.adopt_orphans()
orphan = "import subprocess; subprocess.Popen(['sleep', '3000'])"
run = running.run([sys.executable, "-c", orphan], Path("/"), 60, False)
assert run.status == 0 and run.left == ["sleep 3000"], run
import os
assert list(running.descendants(os.getpid())) == []
"""
    )


def test_a_program_that_hangs_is_ended_with_all_its_processes() -> None:
    in_a_process_of_its_own(
        """
import running
running.adopt_orphans()
hanging = "import subprocess; subprocess.run(['sleep', '3000'])"
run = running.run([sys.executable, "-c", hanging], Path("/"), 0.5, True)
assert run.timed_out and run.seconds >= 0.5, run
import os
assert list(running.descendants(os.getpid())) == []
"""
    )


def test_a_program_that_ends_by_a_signal_or_prints_something_else_is_a_problem() -> None:
    in_a_process_of_its_own(
        f"""
import results, running
run = running.Run(-{int(signal.SIGPIPE)}, 1.0, 1.0, "", "last words")
assert "exit status -13" in results.find_problem("shoal", run)
assert "last words" in results.find_problem("shoal", run)
assert results.find_difference("one", "one", "shoal") is None
assert "two" in results.find_difference("one", "two", "shoal")
"""
    )


def test_a_runner_that_is_told_to_end_ends_the_program_first() -> None:
    in_a_process_of_its_own(
        """
import os, signal
import run, running
running.adopt_orphans()
run.end_programs_when_told_to_end()
hanging = "import os, signal, time; os.kill(os.getppid(), signal.SIGTERM); time.sleep(3000)"
try:
    running.run([sys.executable, "-c", hanging], Path("/"), 60, False)
except SystemExit as error:
    assert error.code == 128 + signal.SIGTERM
else:
    raise AssertionError("the runner goes on")
assert list(running.descendants(os.getpid())) == []
"""
    )
