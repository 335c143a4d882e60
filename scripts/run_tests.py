# SPDX-License-Identifier: Apache-2.0
"""Runs the Python tests, one pytest process for each file, several files side by side.

    run_tests.py [--jobs N] [--times FILE] [PATH ...]      default: pyproject.toml's testpaths

Tests check that they leave nothing behind, so files that run side by side must not see each other's
resources. Each pytest process has its own processes, descriptors and threads, and
scripts/test_worker gives it its own /dev/shm. Where that is not allowed, files run one after the
other. A file that is marked with `pytest.mark.alone` as a whole always runs alone, at the end.

Each finished file is one line. The output of a file is shown, in full, only if the file failed:
workers that die on purpose write messages to it. Exit status: 0, or 1 if a test failed.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

TREE = Path(__file__).resolve().parents[1]
FOLDERS = ("tests/python", "tests/pains", "tests/crash")
ALONE = re.compile(r"^pytestmark\b.*\bmark\.alone\b", re.MULTILINE)
OUTCOMES = re.compile(r"(\d+) (passed|failed|errors?|skipped|xfailed|xpassed)")
NO_TESTS = 5  # pytest's exit status


@dataclass
class Finished:
    """The outcome of one file."""

    path: str
    status: int
    seconds: float
    output: str
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def failed(self) -> bool:
        return self.status not in (0, NO_TESTS)

    @classmethod
    def of(cls, path: str, status: int, seconds: float, output: str) -> Finished:
        counts: Counter[str] = Counter()
        closing = output.rstrip().rpartition("\n")[2]
        for number, outcome in OUTCOMES.findall(closing):
            counts["errors" if outcome == "error" else outcome] += int(number)
        if status not in (0, NO_TESTS) and not counts["failed"] and not counts["errors"]:
            counts["errors"] = 1  # the process itself was killed or could not begin
        return cls(path, status, seconds, output, counts)


class Runner:
    """Starts the pytest processes, ends them when interrupted, prints their outcomes."""

    def __init__(self, own_shared_memory: bool) -> None:
        wrapper = [str(TREE / "scripts" / "test_worker")] if own_shared_memory else []
        self.command = [*wrapper, sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q"]
        self.results: list[Finished] = []
        self.running: dict[subprocess.Popen[bytes], str] = {}
        self.lock = threading.Lock()
        self.stopped = False

    def run_file(self, path: str, total: int) -> None:
        began = time.monotonic()
        with tempfile.TemporaryFile() as output:
            with self.lock:
                if self.stopped:
                    return
                process = subprocess.Popen(
                    [*self.command, path],
                    cwd=TREE,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                self.running[process] = path
            status = process.wait()
            output.seek(0)
            text = output.read().decode("utf-8", "backslashreplace")
        with self.lock:
            self.running.pop(process, None)
            if not self.stopped:
                result = Finished.of(path, status, time.monotonic() - began, text)
                self.results.append(result)
                self.show(result, total)

    def show(self, result: Finished, total: int) -> None:
        tests = ", ".join(f"{number} {what}" for what, number in sorted(result.counts.items()))
        place = f"[{len(self.results):>{len(str(total))}}/{total}]"
        print(f"{place} {result.path:<46} {result.seconds:6.1f} s  {tests}", flush=True)
        if result.failed:
            print(result.output, flush=True)

    def run_all(self, paths: list[str], jobs: int, total: int) -> None:
        """Each of `jobs` threads takes the next file when it has finished one."""
        waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
        for path in paths:
            waiting.put(path)

        def take() -> None:
            while not self.stopped:
                try:
                    path = waiting.get_nowait()
                except queue.Empty:
                    return
                self.run_file(path, total)

        threads = [threading.Thread(target=take) for _ in range(min(jobs, len(paths)))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def stop(self) -> None:
        with self.lock:
            self.stopped = True
            for process in self.running:
                os.killpg(process.pid, signal.SIGKILL)


def find_files(paths: list[str]) -> list[str]:
    found: set[str] = set()
    for name in paths:
        path = TREE / name
        files = path.glob("**/test_*.py") if path.is_dir() else [path]
        found.update(os.path.relpath(file, TREE) for file in files)
    return sorted(found)


class Times:
    """How long each file took the last time, so that the longest begin first."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        try:
            self.seconds: dict[str, float] = json.loads(path.read_text()) if path else {}
        except (OSError, ValueError):
            self.seconds = {}

    def longest_first(self, files: list[str]) -> list[str]:
        """Files that have never run come first, sorted by size."""

        def rank(file: str) -> tuple[float, int]:
            return self.seconds.get(file, float("inf")), (TREE / file).stat().st_size

        return sorted(files, key=rank, reverse=True)

    def save(self, results: list[Finished]) -> None:
        if self.path is not None:
            self.seconds.update({result.path: round(result.seconds, 1) for result in results})
            self.path.write_text(json.dumps(self.seconds, indent=1, sort_keys=True))


def usable_cpus() -> int:
    """CPUs by affinity, or fewer if the control group's quota grants a container less."""
    cpus = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return cpus
    return cpus if quota == "max" else max(1, min(cpus, -(-int(quota) // int(period))))


def can_have_own_shared_memory() -> bool:
    worker = TREE / "scripts" / "test_worker"
    done = subprocess.run([str(worker), "--check"], capture_output=True, check=False)
    return done.returncode == 0


def print_skipped(results: list[Finished]) -> None:
    """Each reason once, as in pytest's summary."""
    reasons: Counter[str] = Counter()
    for result in results:
        for number, reason in re.findall(r"^SKIPPED \[(\d+)\] \S+ (.*)$", result.output, re.M):
            reasons[reason] += int(number)
    for reason, number in sorted(reasons.items()):
        print(f"skipped {number}: {reason}")


def print_sum(results: list[Finished], seconds: float) -> None:
    counts: Counter[str] = Counter()
    for result in results:
        counts.update(result.counts)
    for result in results:
        if result.failed:
            failed = re.findall(r"^(?:FAILED|ERROR) .*$", result.output, re.MULTILINE)
            print("\n".join(failed) or f"FAILED {result.path}: exit status {result.status}")
    order = ("failed", "errors", "passed", "skipped", "xfailed", "xpassed")
    parts = [f"{counts[what]} {what}" for what in order if counts[what]]
    print(f"{', '.join(parts) or 'no tests ran'} in {seconds:.1f}s")


def main() -> int:
    parser = argparse.ArgumentParser(description="Python tests, files side by side.")
    parser.add_argument("paths", nargs="*", metavar="PATH", default=list(FOLDERS))
    parser.add_argument("--jobs", type=int, default=min(8, usable_cpus()))
    parser.add_argument("--times", type=Path, help="file that keeps how long each file takes")
    options = parser.parse_args()
    missing = [path for path in options.paths if not (TREE / path).exists()]
    if missing:
        parser.error(f"no such file or folder: {', '.join(missing)}")

    files = find_files(options.paths)
    times = Times(options.times)
    own = options.jobs > 1 and can_have_own_shared_memory()
    if options.jobs > 1 and not own:
        print("one file after the other: only root may give each a /dev/shm of its own (unshare)")
    alone = [file for file in files if ALONE.search((TREE / file).read_text())]
    together = [file for file in files if file not in alone]

    began = time.monotonic()
    runner = Runner(own)
    try:
        runner.run_all(times.longest_first(together), options.jobs if own else 1, len(files))
        runner.run_all(alone, 1, len(files))
    except KeyboardInterrupt:
        runner.stop()
        print("interrupted")
        return 130
    times.save(runner.results)
    print_skipped(runner.results)
    print_sum(runner.results, time.monotonic() - began)
    return 1 if any(result.failed for result in runner.results) or not runner.results else 0


if __name__ == "__main__":
    sys.exit(main())
