# SPDX-License-Identifier: Apache-2.0
"""What does shoal cost where it is easily overlooked: idle, at scale, in memory?

These rows are for shoal alone, each with a limit. Whether a cost is flat is given as the most
expensive task divided by the cheapest one across the range, so 1.0 is perfectly flat.

Unfair would be: to count only the parent (every process of the program counts: workers, zygote,
agent); to use the resident size for memory (it counts shared pages in each worker; PSS divides
them).
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from measure import SHOAL, Row, Sample, Scale, open_pool
from tasks import noop, numpy_sum


def idle_cpu(side: str, scale: Scale) -> Sample:
    """CPU time that all processes of an idle pool use."""
    with open_pool(side) as pool:
        pool.map(noop, range(1_000))
        time.sleep(0.5)
        everyone = [os.getpid(), *_descendants(os.getpid())]
        before, started = _cpu_seconds(everyone), time.perf_counter()
        time.sleep(scale.pick(5, 1))
        used = _cpu_seconds(everyone) - before
        seconds = time.perf_counter() - started
    return Sample(used / seconds * 1e3, True, {"processes": len(everyone)})


def flat_over_tasks(side: str, scale: Scale) -> Sample:
    costs: dict[str, float] = {}
    right = True
    with open_pool(side) as pool:
        pool.map(noop, range(1_000))
        for exponent in range(3, 5 if scale.quick else 8):
            count = 10**exponent
            costs[f"1e{exponent}"], fine = _cost_per_task(pool, count)
            right = right and fine
    return Sample(_spread(costs.values()), right, {"us_per_task": costs})


def flat_over_workers(side: str, scale: Scale) -> Sample:
    costs: dict[str, float] = {}
    right = True
    count = scale.pick(50_000, 500)
    for workers in (1, 2) if scale.quick else (1, 2, 4, 8, 16, 32, 64):
        with open_pool(side, workers) as pool:
            pool.map(noop, range(workers * 20), chunksize=1)
            costs[str(workers)], fine = _cost_per_task(pool, count, chunksize=1)
            right = right and fine
    return Sample(_spread(costs.values()), right, {"us_per_task": costs})


def _cost_per_task(pool: Any, count: int, **how: int) -> tuple[float, bool]:
    """Microseconds, the median of several maps: one of 1,000 tasks takes 0.1 ms, which a single
    interrupt doubles.
    """
    costs, right = [], True
    for _ in range(min(21, max(3, 1_000_000 // count))):
        started = time.perf_counter()
        results = pool.map(noop, range(count), **how)
        costs.append((time.perf_counter() - started) / count * 1e6)
        right = right and sum(results) == count * (count - 1) // 2
    return statistics.median(costs), right


def memory_per_worker(side: str, scale: Scale) -> Sample:
    """PSS that one more worker adds to the program, with numpy loaded and used."""
    import numpy

    numpy.arange(4).sum()
    few, many = 2, 4 if scale.quick else 10
    sizes = {}
    for workers in (few, many):
        with open_pool(side, workers) as pool:
            pool.map(numpy_sum, range(workers * 50), chunksize=1)
            everyone = [os.getpid(), *_descendants(os.getpid())]
            sizes[workers] = sum(_proportional_bytes(pid) for pid in everyone)
    extra = (sizes[many] - sizes[few]) / (many - few)
    return Sample(extra / 1e6, True, {"bytes": sizes})


def memory_after_many(side: str, scale: Scale) -> Sample:
    """Arena memory that is not freed after many tasks, minus that after a hundredth of them.

    Free memory that is still warm goes back to the system after 30 s; here it is given back
    immediately. The details have the memory file's size before that, which shows how much the tasks
    had in flight at most.
    """
    from shoal._runtime._native import core

    few, many = (1_000, 10_000) if scale.quick else (100_000, 10_000_000)
    kept, most = {}, {}
    right = True
    with open_pool(side) as pool:
        for count in (few, many):
            total = sum(pool.imap_unordered(noop, range(count), chunksize=100))
            right = right and total == count * (count - 1) // 2
            most[count] = _arena_bytes()
            core.purge()
            kept[count] = pool.statistics()["memory"]["in_use"]
    return Sample((kept[many] - kept[few]) / 1e6, right, {"kept": kept, "most": most})


def _spread(costs: Iterable[float]) -> float:
    values = list(costs)
    return max(values) / min(values)


def _arena_bytes() -> int:
    """The committed size of the arena's file: the memory file among our descriptors."""
    sizes = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            if "memfd:shoal" in str(entry.readlink()):
                sizes.append(entry.stat().st_blocks * 512)
        except OSError:
            continue
    if not sizes:
        raise RuntimeError("this process has no descriptor of an arena")
    return max(sizes)


def _parents() -> dict[int, int]:
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            found[int(entry.name)] = int(fields[1])
    return found


def _descendants(root: int) -> list[int]:
    parents = _parents()
    found: list[int] = []
    wanted = {root}
    while wanted:
        wanted = {pid for pid, parent in parents.items() if parent in wanted}
        found.extend(wanted)
    return found


def _cpu_seconds(pids: Iterable[int]) -> float:
    """Time on a CPU, all threads, in the scheduler's own nanoseconds."""
    total = 0
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9


def _proportional_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


ONE = (SHOAL,)
ROWS = [
    Row("idle", "CPU of an idle pool", "ms a second", idle_cpu, limit=1, sides=ONE, rounds=3),
    Row("flat-tasks", "cost per task from 1e3 to 1e7 tasks, dearest / cheapest", "x",
        flat_over_tasks, limit=2, sides=ONE, rounds=3),
    Row("flat-workers", "cost per task from 1 to 64 workers, dearest / cheapest", "x",
        flat_over_workers, limit=2, sides=ONE, rounds=3),
    Row("pss", "memory of one more worker with numpy (PSS)", "MB", memory_per_worker, limit=4,
        sides=ONE, rounds=3),
    Row("memory-flat", "arena after 1e7 tasks, more than after 1e5", "MB", memory_after_many,
        limit=0, sides=ONE, rounds=1),
]  # fmt: skip
