# SPDX-License-Identifier: Apache-2.0
"""What does a pool cost when it has many workers?  python bench/scale/pools.py [WORKERS ...]

For each size (default 2, 8, 64, 256, 1000), in a fresh process:

  start     from `Pool(n)` to the end of a first map of which every worker ran an item, by worker
  map       time per item of a map of 200,000 cheap items with the default chunksize, in the
            quickest of five rounds
  apply     one call of a cheap function, in the median of 300: a wake-up, the call, the answer
  idle      processor time per second of all its processes while the pool does nothing
  end       `terminate()`

The answers are checked. Almost all workers sleep at any moment, so a machine with few processors
can run this; with more workers than processors "start" is the processor time of fork and start.
Unfair on a machine that does anything else at the same time.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

SIZES = [2, 8, 64, 256, 1000]
ITEMS = 200_000


def cheap(x: int) -> int:
    return x + 1


def who(_: int) -> int:
    time.sleep(0.02)
    return os.getpid()


def cpu_seconds(pids: list[int]) -> float:
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def measure(workers: int) -> dict[str, float]:
    import shoal

    shoal.Pool(1).terminate()  # makes the session
    began = time.perf_counter()
    pool = shoal.Pool(workers)
    pids: set[int] = set()
    while len(pids) < workers:
        pids.update(pool.map(who, range(2 * workers), chunksize=1))
    start = time.perf_counter() - began

    rounds = []
    for _ in range(5):
        began = time.perf_counter()
        answers = pool.map(cheap, range(ITEMS))
        rounds.append(time.perf_counter() - began)
        assert answers == list(range(1, ITEMS + 1))

    calls = []
    for i in range(300):
        began = time.perf_counter()
        assert pool.apply(cheap, (i,)) == i + 1
        calls.append(time.perf_counter() - began)

    everybody = [*pids, os.getpid()]
    time.sleep(1)
    before = cpu_seconds(everybody)
    time.sleep(5)
    idle = (cpu_seconds(everybody) - before) / 5

    began = time.perf_counter()
    pool.terminate()
    pool.join()
    return {
        "start": start / workers * 1e3,
        "map": min(rounds) / ITEMS * 1e6,
        "apply": statistics.median(calls) * 1e6,
        "idle": idle * 100,
        "end": time.perf_counter() - began,
    }


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(int(sys.argv[2]))))
        return
    print(f"{os.cpu_count()} processors, Python {sys.version.split()[0]}")
    print("workers   start ms/worker   map us/item   apply us   idle % of a cpu   end s")
    for size in [int(word) for word in sys.argv[1:]] or SIZES:
        command = [sys.executable, __file__, "--one", str(size)]
        row = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        print(
            f"{size:7}   {row['start']:15.2f}   {row['map']:11.3f}   {row['apply']:8.1f}"
            f"   {row['idle']:15.2f}   {row['end']:5.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
