# SPDX-License-Identifier: Apache-2.0
"""The parent is killed: nothing of it is left. Forks in user code: they harm nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import shoal
from killing import check_strength, wait_for

PROGRAM = """
    import os, sys, threading, time
    import shoal

    def work(seconds):
        time.sleep(seconds)

    if __name__ == "__main__":
        method, stage = sys.argv[1:]
        pool = shoal.Pool(3, start=method)
        if stage != "starting":
            pool.map(abs, range(10))
        if stage == "array":
            keep = pool.apply(bytes, (50_000_000,))
        if stage == "running":
            for _ in range(5):
                pool.apply_async(work, (1000,))
        if stage == "waiting":
            threading.Thread(target=pool.apply, args=(work, (1000,)), daemon=True).start()
            time.sleep(0.1)
        print(pool._engine._agent.pid, *pool.worker_pids(), flush=True)
        time.sleep(1000)
"""


def of_session(session: int) -> list[str]:
    """Processes of that session id that still run."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] not in "ZX":
            found.append(entry)
    return found


@pytest.mark.parametrize("stage", ["starting", "idle", "running", "waiting", "array"])
@pytest.mark.parametrize("method", ["zygote", "spawn"])
def test_nothing_outlives_the_parent(interpreter: Any, method: str, stage: str) -> None:
    files = set(os.listdir("/dev/shm"))
    process: subprocess.Popen[str] = interpreter.start(PROGRAM, method, stage)
    try:
        line = process.stdout.readline()  # type: ignore[union-attr]
        assert line, process.stderr.read()  # type: ignore[union-attr]
        assert len(of_session(process.pid)) >= 2
        begin = time.monotonic()
        process.kill()
        process.wait()
        wait_for(lambda: not of_session(process.pid), "everybody's end", 20)
        took = time.monotonic() - begin
        print(f"{took:.3f} s")
        assert took < 1 or os.getloadavg()[0] > 2 * (os.cpu_count() or 1), f"took {took:.2f} s"
        assert set(os.listdir("/dev/shm")) <= files
    finally:
        interpreter.kill_group(process)
        process.communicate()


def test_parent_and_agent_killed_at_once(interpreter: Any) -> None:
    process = interpreter.start(PROGRAM, "zygote", "running")
    try:
        agent = int(process.stdout.readline().split()[0])
        os.kill(agent, signal.SIGSTOP)  # it cannot even look
        process.kill()
        process.wait()
        time.sleep(0.1)
        os.kill(agent, signal.SIGKILL)
        wait_for(lambda: not of_session(process.pid), "everybody's end", 20)
    finally:
        interpreter.kill_group(process)
        process.communicate()


# ---- Forks in user code --------------------------------------------------------------------------


def fork_inside(value: int) -> tuple[int, int]:
    """A child that ends by itself."""
    pid = os.fork()
    if pid == 0:
        os._exit(value)
    return value, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def fork_and_return(value: int) -> int:
    """The child comes back as well: it must not answer for its parent."""
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
    return value + (0 if pid else 1_000_000)


def fork_with_array(array: Any) -> float:
    pid = os.fork()
    if pid == 0:
        array[:] = -1.0  # its own copy
        os._exit(0)
    os.waitpid(pid, 0)
    return float(array.sum())


def test_fork_inside_a_task() -> None:
    with shoal.Pool(2) as pool:
        assert pool.map(fork_inside, range(20), chunksize=1) == [(i, i) for i in range(20)]
        check_strength(pool, 2)


def test_a_child_that_returns_from_the_task() -> None:
    with shoal.Pool(2) as pool:
        assert pool.map(fork_and_return, range(10), chunksize=1) == list(range(10))
        check_strength(pool, 2)


def test_fork_inside_a_task_with_an_array() -> None:
    numpy = pytest.importorskip("numpy")
    with shoal.Pool(2) as pool:
        arrays = [numpy.full(100_000, float(i)) for i in range(6)]
        assert pool.map(fork_with_array, arrays, chunksize=1) == [100_000.0 * i for i in range(6)]
        check_strength(pool, 2)


def make_array(value: int) -> Any:
    import numpy

    return numpy.full(100_000, float(value))


def test_fork_outside_with_arrays_held() -> None:
    pytest.importorskip("numpy")
    with shoal.Pool(2) as pool:
        held = pool.map(make_array, range(4), chunksize=1)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                good = all((array == float(i)).all() for i, array in enumerate(held))
                held[0][:] = 77.0  # a copy of its own
                try:
                    pool.apply(abs, (1,))
                except shoal.ForkedPool:
                    code = 0 if good else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        more = pool.map(make_array, range(10, 14), chunksize=1)
        assert all((array == float(i)).all() for i, array in enumerate(held))
        assert all((array == float(i + 10)).all() for i, array in enumerate(more))
        check_strength(pool, 2)


def test_a_child_of_a_fork_makes_a_pool_of_its_own() -> None:
    with shoal.Pool(2) as pool:
        assert pool.map(abs, [-1, -2]) == [1, 2]
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                with shoal.Pool(1) as own:
                    code = 0 if own.map(abs, [-3]) == [3] else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        check_strength(pool, 2)
