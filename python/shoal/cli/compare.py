# SPDX-License-Identifier: Apache-2.0
"""`shoal compare`: one program under the standard library and under shoal, side by side.

Each run is a fresh process, so neither side warms the other's memory. The sides alternate within a
round and change places from round to round, so drift of the machine affects both equally. A ratio
is shown only if the outputs agree: a fast wrong answer is a failure.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

from shoal.cli import run as run_command
from shoal.cli.screen import print_table, show_progress

STDLIB, SHOAL = "standard library", "shoal"


@dataclass
class Run:
    """One finished run of the program."""

    side: str
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    status: int  # negative: killed by this signal
    output: bytes
    errors: bytes
    timed_out: bool = False

    @property
    def failed(self) -> bool:
        return self.status != 0 or self.timed_out

    def describe_failure(self) -> str:
        if self.timed_out:
            return f"under {self.side}: not finished after {self.seconds:.1f} s, killed"
        if self.status < 0:
            return f"under {self.side}: killed by {signal.Signals(-self.status).name}"
        return f"under {self.side}: exit status {self.status}"


def _environment(side: str) -> dict[str, str]:
    if side == SHOAL:
        return run_command.environment()
    return {name: value for name, value in os.environ.items() if not name.startswith("SHOAL_")}


def _contents(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


def run_once(command: Sequence[str], side: str, timeout: float | None = None) -> Run:
    """Run the program to its end, in its own process session, with its output in files."""
    arguments = [sys.executable, *run_command.interpreter_flags(), *command]
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        started = time.perf_counter()
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env=_environment(side),
            start_new_session=True,
        )
        timed_out = False
        try:
            try:
                _wait_without_reaping(process, timeout)
            except TimeoutError:
                timed_out = True
                os.killpg(process.pid, signal.SIGKILL)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        seconds = time.perf_counter() - started
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        return Run(
            side,
            seconds,
            usage.ru_utime + usage.ru_stime,
            usage.ru_maxrss * 1024,
            process.returncode,
            _contents(output),
            _contents(errors),
            timed_out,
        )


def _wait_without_reaping(process: subprocess.Popen[bytes], timeout: float | None) -> None:
    """Wait for the end, but leave the status to wait4, which also returns the resource usage."""
    import select

    from shoal._runtime._native import core

    descriptor = core.watch_process(process.pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        if not poll.poll(None if timeout is None else timeout * 1000):
            raise TimeoutError
    finally:
        os.close(descriptor)


def comparable(output: bytes, ignore: Sequence[str]) -> list[str]:
    """The lines of an output that must be the same in every run."""
    patterns = [re.compile(pattern) for pattern in ignore]
    lines = output.decode("utf-8", "backslashreplace").splitlines()
    return [line for line in lines if not any(pattern.search(line) for pattern in patterns)]


def find_difference(runs: Sequence[Run], ignore: Sequence[str]) -> str | None:
    """The first lines of a diff between the first run's output and one that differs, if any."""
    expected = comparable(runs[0].output, ignore)
    for number, run in enumerate(runs[1:], 2):
        lines = comparable(run.output, ignore)
        if lines != expected:
            names = f"run 1 ({runs[0].side})", f"run {number} ({run.side})"
            difference = list(difflib.unified_diff(expected, lines, *names, lineterm="", n=1))
            return "\n".join(difference[:24])
    return None


def summarize(runs: Sequence[Run], rounds: int, command: Sequence[str]) -> dict[str, Any]:
    """Medians, spreads and the ratio, as written to JSON."""
    sides: dict[str, Any] = {}
    for side in (STDLIB, SHOAL):
        mine = [run for run in runs if run.side == side]
        seconds = [run.seconds for run in mine]
        sides[side] = {
            "seconds": seconds,
            "median_seconds": statistics.median(seconds),
            "median_cpu_seconds": statistics.median(run.cpu_seconds for run in mine),
            "peak_bytes": max(run.peak_bytes for run in mine),
        }
    pairs = [
        first / second for first, second in zip(sides[STDLIB]["seconds"], sides[SHOAL]["seconds"])
    ]
    return {
        "command": list(command),
        "rounds": rounds,
        "sides": sides,
        "ratio": sides[STDLIB]["median_seconds"] / sides[SHOAL]["median_seconds"],
        "ratio_by_round": pairs,
    }


def _print_summary(summary: dict[str, Any], output: Sequence[str]) -> None:
    rows = []
    for side, figures in summary["sides"].items():
        seconds = figures["seconds"]
        rows.append(
            (
                side,
                f"{figures['median_seconds']:.3f} s",
                f"{min(seconds):.3f} .. {max(seconds):.3f}",
                f"{figures['median_cpu_seconds']:.2f} s",
                f"{figures['peak_bytes'] / 2**20:,.0f} MB",
            )
        )
    title = f"{' '.join(summary['command'])}   ({summary['rounds']} rounds, interleaved)"
    print_table(title, ("", "median", "range", "CPU", "largest process"), rows)
    digest = hashlib.sha256("\n".join(output).encode()).hexdigest()[:16]
    print(f"same output in all runs: {len(output):,} lines, sha256 {digest}")
    ratio = summary["ratio"]
    verdict = f"{ratio:.2f} times as fast" if ratio >= 1 else f"{1 / ratio:.2f} times as slow"
    spread = summary["ratio_by_round"]
    print(f"shoal is {verdict} (by round: {min(spread):.2f} .. {max(spread):.2f})")


def _report_failure(run: Run) -> None:
    sys.stderr.write(f"shoal compare: the program failed {run.describe_failure()}\n")
    tail = run.errors.decode("utf-8", "backslashreplace").splitlines()[-20:]
    sys.stderr.write("".join(f"  {line}\n" for line in tail))


def _exit_by(number: int, frame: object) -> None:
    """Raise SystemExit in `run_once`, which then kills the running program."""
    raise SystemExit(128 + number)


def main(
    command: Sequence[str],
    rounds: int,
    ignore: Sequence[str],
    timeout: float | None,
    show: bool,
    as_json: bool,
) -> int:
    """Run all rounds. Exit status: 0 the outputs agree, 1 they differ or a run failed."""
    if run_command.find_start_up_file() is None:
        return run_command.main(command, explain=False)
    try:
        comparable(b"", ignore)
    except re.error as error:
        sys.stderr.write(f"shoal compare: --ignore: {error}\n")
        return 2
    runs: list[Run] = []
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, _exit_by)
    try:
        for number in range(rounds):
            sides = (STDLIB, SHOAL) if number % 2 == 0 else (SHOAL, STDLIB)
            for side in sides:
                show_progress(f"round {number + 1} of {rounds}: {side} ...")
                runs.append(run_once(command, side, timeout))
                show_progress("")
                if runs[-1].failed:
                    _report_failure(runs[-1])
                    return 1
    except KeyboardInterrupt:
        show_progress("")
        sys.stderr.write("shoal compare: interrupted\n")
        return 130
    difference = find_difference(runs, ignore)
    summary = summarize(runs, rounds, command)
    summary["same_output"] = difference is None
    if show and not as_json:
        sys.stdout.write(runs[0].output.decode("utf-8", "backslashreplace") + "\n")
    if as_json:
        print(json.dumps(summary, indent=2))
    elif difference is None:
        _print_summary(summary, comparable(runs[0].output, ignore))
    if difference is not None:
        sys.stderr.write(f"shoal compare: the outputs differ\n{difference}\n")
        return 1
    return 0
