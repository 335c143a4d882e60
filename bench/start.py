# SPDX-License-Identifier: Apache-2.0
"""What does `shoal run` cost a short program, beyond plain `python`? `python bench/start.py --help`

Each row is one small program, run under the standard library and by the command `shoal`, each time
in fresh processes. Within a round the sides and rows follow one another, and the sides change
places from round to round, so drift of the machine affects all equally. The first table has medians
of wall time, and the least processor time that the program and its children took, which is more
reliable on a busy machine. The second has the time from `Pool(2)` to the first result, in programs
that have imported what they need, by start method, and with pandas (which loads pyarrow and starts
its threads) where that is installed. The last table has the private memory of the program and of
its workers.

Unfair would be: a `shoal` that finds no compiled modules (this compiles them first).
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EMPTY = ""
POOL = """
import multiprocessing
if __name__ == "__main__":
    with multiprocessing.Pool(2) as pool:
        assert sum(pool.map(abs, range(-100, 0))) == 5050
"""
EXECUTOR = """
from concurrent.futures import ProcessPoolExecutor
if __name__ == "__main__":
    with ProcessPoolExecutor(2) as executor:
        assert sum(executor.map(abs, range(-100, 0))) == 5050
"""
QUEUE = """
import multiprocessing
def work(queue):
    queue.put(5050)
if __name__ == "__main__":
    queue = multiprocessing.Queue()
    process = multiprocessing.Process(target=work, args=(queue,))
    process.start()
    assert queue.get() == 5050
    process.join()
"""
MEMORY = """
import json, multiprocessing
def private(pid):
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Private_"))
if __name__ == "__main__":
    with multiprocessing.Pool(2) as pool:
        assert sum(pool.map(abs, range(-100, 0))) == 5050
        workers = [private(process.pid) for process in pool._pool]
        print(json.dumps([private("self"), max(workers)]))
"""
# Prints the milliseconds from making a pool to its first result, for two pools: the second pool
# reuses the first pool's imports and its fork server.
FIRST = """
import time
import multiprocessing
{imports}
def work(x):
    return x{has}
if __name__ == "__main__":
    context = multiprocessing.get_context("{method}")
    for _ in range(2):
        began = time.perf_counter()
        with context.Pool(2) as pool:
            assert pool.apply(work, (7,)) == 7
            print((time.perf_counter() - began) * 1e3)
"""
METHODS = ("fork", "spawn", "forkserver")
FIRST_POOLS = {
    **{method: FIRST.format(imports="", has="", method=method) for method in METHODS},
    "fork, with pandas and pyarrow": FIRST.format(
        imports="import pandas, pyarrow\nframe = pandas.DataFrame({'a': [0]})",
        has=" + int(frame.a[0])",
        method="fork",
    ),
    "fork, with scikit-learn": FIRST.format(
        imports="import sklearn.ensemble", has="", method="fork"
    ),
}
ROWS = {
    "empty program": EMPTY,
    "one small Pool.map": POOL,
    "the same, ProcessPoolExecutor": EXECUTOR,
    "a Queue and a Process": QUEUE,
}
SIDES = ("python", "shoal")


def commands(shoal: str) -> dict[str, list[str]]:
    return {"python": [sys.executable], "shoal": [shoal, "run"]}


def run(command: list[str], program: Path) -> tuple[float, float]:
    """Wall and processor seconds of one run, children that it waited for included."""
    started = time.perf_counter()
    pid = os.posix_spawn(command[0], [*command, str(program)], environment())
    _, status, usage = os.wait4(pid, 0)
    seconds = time.perf_counter() - started
    if status != 0:
        raise SystemExit(f"{command} {program}: wait status {status}")
    return seconds, usage.ru_utime + usage.ru_stime


def environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("SHOAL_")}


def measure(shoal: str, folder: Path, rounds: int) -> dict[str, dict[str, list[float]]]:
    """{row: {side: milliseconds, "python cpu": ..., "shoal cpu": ...}}"""
    sides = commands(shoal)
    found: dict[str, dict[str, list[float]]] = {}
    for number in range(-1, rounds):  # the first round warms caches
        for row, source in ROWS.items():
            program = folder / "program.py"
            program.write_text(source)
            for side in SIDES if number % 2 else reversed(SIDES):
                wall, processor = run(sides[side], program)
                if number >= 0:
                    times = found.setdefault(row, {})
                    times.setdefault(side, []).append(wall * 1e3)
                    times.setdefault(f"{side} cpu", []).append(processor * 1e3)
    return found


def can_run(source: str) -> bool:
    imports = "\n".join(line for line in source.splitlines() if line.startswith("import "))
    done = subprocess.run([sys.executable, "-c", imports], stderr=subprocess.DEVNULL, check=False)
    return done.returncode == 0


def first_pools(shoal: str, folder: Path, rounds: int) -> dict[str, dict[str, list[float]]]:
    """{row: {side: milliseconds}}; a row for a program's first pool and one for its second."""
    program = folder / "first.py"
    found: dict[str, dict[str, list[float]]] = {}
    for row, source in FIRST_POOLS.items():
        if not can_run(source):
            continue
        program.write_text(source)
        for number in range(-1, rounds):
            for side in SIDES if number % 2 else reversed(SIDES):
                command = [*commands(shoal)[side], str(program)]
                lines = subprocess.check_output(command, env=environment()).split()
                for which, line in zip(("first", "second"), lines):
                    if number >= 0:
                        sides = found.setdefault(f"{which}, {row}", {})
                        sides.setdefault(side, []).append(float(line))
    return found


def memory(shoal: str, folder: Path, rounds: int) -> dict[str, list[float]]:
    """{side: [program's MB, a worker's MB]}, medians."""
    program = folder / "memory.py"
    program.write_text(MEMORY)
    found: dict[str, list[float]] = {}
    for side, command in commands(shoal).items():
        samples = [
            json.loads(subprocess.check_output([*command, str(program)], env=environment()))
            for _ in range(rounds)
        ]
        found[side] = [statistics.median(column) / 1024 for column in zip(*samples)]
    return found


def show(
    times: dict[str, dict[str, list[float]]],
    pools: dict[str, dict[str, list[float]]],
    private: dict[str, list[float]],
) -> None:
    print(f"{'ms, medians':<32}{'python':>9}{'shoal':>9}{'beyond':>9}{'beyond, least CPU':>20}")
    for row, columns in times.items():
        wall = [statistics.median(columns[side]) for side in SIDES]
        cpu = [min(columns[f"{side} cpu"]) for side in SIDES]
        print(
            f"{row:<32}{wall[0]:>9.1f}{wall[1]:>9.1f}{wall[1] - wall[0]:>9.1f}"
            f"{cpu[1] - cpu[0]:>20.1f}"
        )
    print(f"\n{'Pool to first result, ms':<40}{'python':>9}{'shoal':>9}{'ratio':>8}")
    for row, columns in pools.items():
        mine, ours = (statistics.median(columns[side]) for side in SIDES)
        print(f"{row:<40}{mine:>9.1f}{ours:>9.1f}{ours / mine:>8.2f}")
    print(f"\n{'private MB after Pool.map':<32}{'python':>9}{'shoal':>9}{'beyond':>9}")
    for place, who in enumerate(("the program", "its largest worker")):
        mine, ours = private["python"][place], private["shoal"][place]
        print(f"{who:<32}{mine:>9.1f}{ours:>9.1f}{ours - mine:>9.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument(
        "--shoal",
        default=shutil.which("shoal", path=os.path.dirname(sys.executable)),
        help="the command (default: the one beside this Python)",
    )
    options = parser.parse_args()
    if options.shoal is None:
        parser.error("no command `shoal` beside this Python: name it by --shoal")
    import shoal

    compileall.compile_dir(os.path.dirname(shoal.__file__), quiet=2)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        show(
            measure(options.shoal, folder, options.rounds),
            first_pools(options.shoal, folder, max(3, options.rounds // 2)),
            memory(options.shoal, folder, max(3, options.rounds // 4)),
        )


if __name__ == "__main__":
    main()
