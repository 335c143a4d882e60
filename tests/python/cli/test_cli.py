# SPDX-License-Identifier: Apache-2.0
"""The command: what it passes through, what it compares, how it says that something is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

POOL = """
import multiprocessing
if __name__ == "__main__":
    with multiprocessing.Pool(2) as pool:
        print(sum(pool.map(abs, range(-100, 0))))
"""


def shoal(*arguments: str | Path, options: tuple[str, ...] = (), **keywords):
    command = [sys.executable, *options, "-m", "shoal", *map(str, arguments)]
    keywords = {"capture_output": True, "text": True, "timeout": 100, **keywords}
    return subprocess.run(command, **keywords)


@pytest.fixture
def program(tmp_path: Path):
    def write(source: str) -> Path:
        path = tmp_path / "prog.py"
        path.write_text(textwrap.dedent(source))
        return path

    return write


def test_help_is_short_and_names_every_command() -> None:
    done = shoal("--help")
    assert done.returncode == 0 and done.stdout == shoal().stdout
    for word in ("shoal run", "shoal compare", "shoal info", "--explain", "--version"):
        assert word in done.stdout
    lines = done.stdout.splitlines()
    assert len(lines) < 30 and max(map(len, lines)) <= 100


@pytest.mark.parametrize("command", ["run", "compare", "info"])
def test_each_command_has_its_help(command: str) -> None:
    done = shoal(command, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: shoal {command}")


def test_version_is_the_packages() -> None:
    import shoal as package

    assert shoal("--version").stdout == f"shoal {package.__version__}\n"


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["run"], ["run", "-m"], ["compare", "--rounds", "0", "x.py"]]
)
def test_wrong_usage_is_status_2_and_one_hint(arguments: list[str]) -> None:
    done = shoal(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("shoal") and done.stdout == ""
    assert "Traceback" not in done.stderr


def test_run_gives_the_program_its_own_arguments(program) -> None:
    path = program("import sys; print(sys.argv, __name__, __file__)")
    done = shoal("run", path, "--explain", "-m", "x", "--", "--help")
    arguments = [str(path), "--explain", "-m", "x", "--", "--help"]
    assert done.stdout == f"{arguments} __main__ {path}\n"


def test_run_takes_modules_and_code(tmp_path: Path) -> None:
    done = shoal("run", "-m", "json.tool", "--indent", "0", input='{"a": 1}')
    assert json.loads(done.stdout) == {"a": 1}
    done = shoal("run", "-c", "import sys; print(sys.argv)", "a", "-c", "b")
    assert done.stdout == "['-c', 'a', '-c', 'b']\n"


def test_run_keeps_the_interpreters_options() -> None:
    code = "import sys; print(sys.flags.dev_mode, sys.flags.optimize)"
    assert shoal("run", "-c", code, options=("-X", "dev", "-O")).stdout == "True 1\n"


@pytest.mark.parametrize("status", [0, 1, 77])
def test_run_passes_the_exit_status_through(program, status: int) -> None:
    assert shoal("run", program(f"raise SystemExit({status})")).returncode == status


def test_run_passes_death_by_signal_through(program) -> None:
    path = program("import os, signal; os.kill(os.getpid(), signal.SIGTERM)")
    assert shoal("run", path).returncode == -signal.SIGTERM


def test_run_is_the_program_so_signals_reach_it(program) -> None:
    path = program("""
        import signal
        import time

        seen = []
        signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
        print("ready", flush=True)
        while not seen:
            time.sleep(0.001)
        print("got it", flush=True)
    """)
    process = subprocess.Popen(
        [sys.executable, "-m", "shoal", "run", str(path)], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == "got it\n"
    assert process.returncode == 0


def test_run_gives_the_program_shoals_pool_and_explain_says_so(program) -> None:
    done = shoal("run", "--explain", program(POOL))
    assert done.stdout == "5050\n"
    assert "(the program)" in done.stderr
    assert "swapped      1 x multiprocessing.pool.Pool" in done.stderr
    assert "left     Process: " in done.stderr


def test_run_heals_an_executor_and_says_so(program) -> None:
    """The option is an environment variable, so children have it too."""
    path = program("""
        import os
        from concurrent.futures import ProcessPoolExecutor
        from concurrent.futures.process import BrokenProcessPool

        def die(number):
            os._exit(3)

        if __name__ == "__main__":
            with ProcessPoolExecutor(2) as executor:
                try:
                    executor.submit(die, 1).result()
                except BrokenProcessPool as error:
                    print(type(error).__name__)
                try:
                    print(executor.submit(abs, -2).result())
                except BrokenProcessPool:
                    print("broken")
    """)
    healed = shoal("run", "--heal", "--explain", path)
    assert healed.stdout == "WorkerDied\n2\n", healed.stderr
    assert "fails its task only (--heal)" in healed.stderr
    broken = shoal("run", "--explain", path)
    assert broken.stdout == "WorkerDied\nbroken\n", broken.stderr
    assert "breaks its executor" in broken.stderr


def test_explain_names_what_was_left_and_why(program) -> None:
    path = program("""
        import multiprocessing
        from multiprocessing.pool import Pool, ThreadPool

        class Own(Pool):
            pass

        if __name__ == "__main__":
            with Own(1, context=multiprocessing.get_context("fork")), ThreadPool(1):
                pass
    """)
    text = shoal("run", "--explain", path).stderr
    assert "left         1 x __main__.Own: a subclass of multiprocessing.pool.Pool" in text
    assert "left         1 x multiprocessing.pool.ThreadPool" in text


def test_explain_says_when_there_was_nothing_to_do() -> None:
    assert "nothing to swap" in shoal("run", "--explain", "-c", "pass").stderr


def test_run_of_a_missing_file_is_pythons_own_error(tmp_path: Path) -> None:
    done = shoal("run", tmp_path / "none.py")
    assert done.returncode == 2
    assert "can't open file" in done.stderr


def test_compare_accepts_equal_outputs_and_shows_the_ratio(program) -> None:
    done = shoal("compare", "--rounds", "2", program(POOL))
    assert done.returncode == 0, done.stderr
    assert "same output in all runs: 1 lines" in done.stdout
    assert "standard library" in done.stdout and "shoal is " in done.stdout


def test_compare_runs_each_side_in_turn(program, tmp_path: Path) -> None:
    log = tmp_path / "log"
    path = program(f"""
        import os
        with open({str(log)!r}, "a") as file:
            file.write(os.environ.get("SHOAL_RUN", "-"))
    """)
    assert shoal("compare", "--rounds", "3", path).returncode == 0
    assert log.read_text() == "-11--1"


def test_compare_refuses_different_outputs_and_shows_the_difference(program) -> None:
    path = program("import os; print('same'); print('run under', os.environ.get('SHOAL_RUN'))")
    done = shoal("compare", "--rounds", "1", path)
    assert done.returncode == 1
    assert "the outputs differ" in done.stderr and "-run under None" in done.stderr
    assert "shoal is" not in done.stdout
    assert shoal("compare", "--rounds", "1", "--ignore", "^run", path).returncode == 0


def test_compare_reports_a_program_that_fails(program) -> None:
    done = shoal("compare", program("print(1); raise ValueError('this one')"))
    assert done.returncode == 1
    assert "exit status 1" in done.stderr and "ValueError: this one" in done.stderr
    done = shoal("compare", program("import os; os.abort()"))
    assert done.returncode == 1
    assert "SIGABRT" in done.stderr


def test_compare_kills_a_run_that_takes_too_long(program) -> None:
    path = program("""
        import subprocess, sys, time
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        time.sleep(600)
    """)
    done = shoal("compare", "--timeout", "1", path)
    assert done.returncode == 1
    assert "not finished" in done.stderr


def test_compare_that_is_ended_ends_the_program_it_runs(program, tmp_path, wait_until) -> None:
    path = program(f"""
        import os, time
        with open({str(tmp_path / "pid.new")!r}, "w") as file:
            file.write(str(os.getpid()))
        os.rename({str(tmp_path / "pid.new")!r}, {str(tmp_path / "pid")!r})
        time.sleep(600)
    """)
    process = subprocess.Popen([sys.executable, "-m", "shoal", "compare", str(path)])
    wait_until((tmp_path / "pid").exists, "the program runs")
    pid = int((tmp_path / "pid").read_text())
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the program has ended")


def test_compare_gives_json(program) -> None:
    done = shoal("compare", "--json", "--rounds", "2", program(POOL))
    result = json.loads(done.stdout)
    assert result["rounds"] == 2 and result["same_output"] is True
    assert len(result["sides"]["shoal"]["seconds"]) == 2
    assert result["ratio"] > 0


def test_compare_shows_the_programs_output_once(program) -> None:
    assert shoal("compare", "--show", "--rounds", "2", program(POOL)).stdout.count("5050") == 1


def test_compare_refuses_a_bad_pattern(program) -> None:
    done = shoal("compare", "--ignore", "(", program(POOL))
    assert done.returncode == 2 and "--ignore" in done.stderr


def test_tables_do_not_need_rich(program) -> None:
    code = "import sys; sys.modules['rich'] = sys.modules['rich.console'] = None; "
    code += "from shoal.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "compare", "--rounds", "1", str(program(POOL))],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "----" in done.stdout and "shoal is " in done.stdout


def test_info_tells_the_machine() -> None:
    facts = json.loads(shoal("info", "--json").stdout)
    assert facts["CPUs"]["by affinity"] == str(len(os.sched_getaffinity(0)))
    assert facts["Python"]["executable"] == sys.executable
    text = shoal("info").stdout
    for section in facts:
        assert section in text.splitlines()


def test_info_counts_the_cpus_of_the_affinity(tmp_path: Path) -> None:
    one = min(os.sched_getaffinity(0))
    done = shoal("info", "--json", preexec_fn=lambda: os.sched_setaffinity(0, {one}))
    assert json.loads(done.stdout)["CPUs"]["workers by default"] == "1"


def test_run_without_the_start_up_file_says_what_to_do(tmp_path: Path) -> None:
    code = "import site; site.getsitepackages = lambda: []; site.getusersitepackages = lambda: ''; "
    code += "from shoal.cli import main; import sys; sys.exit(main(['run', 'x.py']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "shoal_boot.pth" in done.stderr
