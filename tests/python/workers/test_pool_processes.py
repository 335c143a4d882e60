# SPDX-License-Identifier: Apache-2.0
"""The workers of the drop-in's pools are processes of `multiprocessing`: what programs find out
about them, and do with them, is as with the standard library.

Each program here runs under both, and must print the same.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

METHODS = ["fork", "spawn", "forkserver"]
UNDER_SHOAL = {"SHOAL_RUN": "1"}


def same_under_both(interpreter: Any, source: str, *arguments: str, **options: Any) -> str:
    """The output under the standard library, which shoal's equals."""
    expected: str = interpreter(source, *arguments, **options).check()
    env = {**options.pop("env", {}), **UNDER_SHOAL}
    assert interpreter(source, *arguments, env=env, **options).check() == expected
    return expected


POOLS = """
import multiprocessing, os, signal, sys, time
from concurrent.futures import ProcessPoolExecutor

def is_swapped():
    return os.environ.get("SHOAL_RUN") == "1"

def made(kind, context, workers=2, **options):
    pool = context.Pool(workers, **options) if kind == "pool" else ProcessPoolExecutor(
        workers, mp_context=context, **options)
    assert type(pool).__module__.startswith("shoal") == is_swapped()
    return pool

def call(pool, function, *arguments):
    if hasattr(pool, "submit"):
        return pool.submit(function, *arguments).result()
    return pool.apply(function, arguments)
"""


@pytest.mark.parametrize("method", METHODS)
def test_whom_a_worker_has_for_parent_and_name(interpreter: Any, method: str) -> None:
    source = (
        POOLS
        + """
def who(program):
    me, parent = multiprocessing.current_process(), multiprocessing.parent_process()
    same_group = os.getpgid(0) == os.getpgid(program)
    return (os.getppid() == program, parent.pid == program, parent.name, parent.is_alive(),
            same_group, me.name.rpartition("-")[0], type(me).__name__, len(me._identity), me.daemon)

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    for kind in ("pool", "executor"):
        with made(kind, context) as pool:
            print(kind, call(pool, who, os.getpid()))
            print(len(multiprocessing.active_children()))
    print(len(multiprocessing.active_children()))
"""
    )
    printed = same_under_both(interpreter, source, method)
    assert ("(True, True, 'MainProcess'" in printed) == (method != "forkserver")


@pytest.mark.parametrize("method", METHODS)
def test_names_count_on_over_the_pools_of_a_program(interpreter: Any, method: str) -> None:
    source = (
        POOLS
        + """
def name(_):
    return multiprocessing.current_process().name

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    process = context.Process(target=abs, args=(1,))
    process.start(), process.join()
    names = set()
    with context.Pool(2) as one, context.Pool(2, maxtasksperchild=1) as other:
        for _ in range(20):
            names |= {name_ for pool in (one, other) for name_ in pool.map(name, [1, 2], 1)}
    numbers = sorted(int(name_.rpartition("-")[2]) for name_ in names)
    print(numbers[0] > 1, len(numbers) == len(set(numbers)), len(numbers) > 10)
"""
    )
    same_under_both(interpreter, source, method)


def test_native_pools_share_no_names_either(interpreter: Any) -> None:
    interpreter(
        """
        import multiprocessing, shoal, time

        def name(seconds):
            time.sleep(seconds)
            return multiprocessing.current_process().name

        with shoal.Pool(2) as one, shoal.Pool(2) as other, shoal.Executor(1) as third:
            names = [one.apply_async(name, (0.3,)) for _ in range(2)]
            names += [other.apply_async(name, (0.3,)) for _ in range(2)]
            found = [r.get() for r in names] + [third.submit(name, 0).result()]
        assert len(set(found)) == 5, found
        """
    ).check()


# ---- Signals -------------------------------------------------------------------------------------

TO_THE_GROUP = (
    POOLS
    + """
seen = []

def note(number, frame):
    seen.append(number)

def slow(path):
    open(path, "w").close()
    while not os.path.exists(path + ".go"):
        time.sleep(0.005)
    return len(seen)

if __name__ == "__main__":
    number = getattr(signal, sys.argv[2])
    signal.signal(number, note)
    context = multiprocessing.get_context(sys.argv[1])
    for kind in ("pool", "executor"):
        seen.clear()
        pool = made(kind, context)
        call(pool, abs, -1)
        paths = [os.path.abspath(f"{kind}-{i}-{is_swapped()}") for i in range(2)]
        send = pool.submit if kind == "executor" else lambda f, *a: pool.apply_async(f, a)
        results = [send(slow, path) for path in paths]
        while not all(map(os.path.exists, paths)):
            time.sleep(0.005)
        os.killpg(0, number)
        while not seen:
            time.sleep(0.005)
        for path in paths:
            open(path + ".go", "w").close()
        get = (lambda r: r.result()) if kind == "executor" else (lambda r: r.get())
        print(kind, [get(result) for result in results], len(seen))
        if kind == "executor":
            pool.shutdown()
        else:
            pool.close()
            pool.join()  # one that is terminated would wait for workers that survive SIGTERM
"""
)


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_to_the_group_that_the_program_handles_costs_no_task(
    interpreter: Any, name: str
) -> None:
    assert same_under_both(interpreter, TO_THE_GROUP, "fork", name).startswith("pool [1, 1] 1")


@pytest.mark.parametrize("start", ["zygote", "fork", "spawn"])
@pytest.mark.parametrize("name", ["SIGUSR2", "SIGTSTP", "SIGALRM", "SIGHUP", "SIGTERM"])
def test_no_signal_ends_the_helpers_of_a_native_pool(
    interpreter: Any, start: str, name: str
) -> None:
    interpreter(
        """
        import os, shoal, signal, sys
        number = getattr(signal, sys.argv[2])
        signal.signal(number, lambda *_: None)
        with shoal.Pool(2, start=sys.argv[1]) as pool:
            workers = sorted(pool.map(abs, [1, 2]) and pool.worker_pids())
            os.kill(pool._engine._agent.pid, number)
            if sys.argv[1] != "spawn":  # fresh interpreters have no handler of the program's
                os.killpg(0, number)
            assert pool.map(abs, [-1, -2]) == [1, 2]
            assert sorted(pool.worker_pids()) == workers
        """,
        start,
        name,
    ).check()


def test_handlers_that_c_code_has_set_hold_in_workers(interpreter: Any) -> None:
    source = (
        POOLS
        + """
import faulthandler, tempfile

def signals_itself(number):
    os.kill(os.getpid(), number)
    return "lives"

def blocked():
    return sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ()))

def ignores(number):
    return signal.getsignal(number) is signal.SIG_IGN

if __name__ == "__main__":
    log = tempfile.TemporaryFile("w+")
    faulthandler.register(signal.SIGUSR1, file=log)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP, signal.SIGWINCH})
    context = multiprocessing.get_context("fork")
    for kind in ("pool", "executor"):
        with made(kind, context, 1) as pool:
            print(call(pool, signals_itself, signal.SIGUSR1), call(pool, signals_itself, 12))
            log.seek(0)
            print("signals_itself" in log.read())
            log.truncate(0)
            log.seek(0)
            mask = set(call(pool, blocked))
            print({signal.SIGHUP, signal.SIGWINCH} <= mask, signal.SIGTERM in mask)
            print(call(pool, ignores, signal.SIGUSR2), call(pool, ignores, signal.SIGCHLD))
"""
    )
    assert same_under_both(interpreter, source).startswith("lives lives\nTrue\nTrue False\nTrue")


def test_the_same_in_workers_of_a_native_pool(interpreter: Any) -> None:
    interpreter(
        """
        import faulthandler, os, shoal, signal, tempfile
        log = tempfile.TemporaryFile("w+")
        faulthandler.register(signal.SIGUSR1, file=log)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})

        def look():
            os.kill(os.getpid(), signal.SIGUSR1)
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
            numbers = signal.SIGUSR2, signal.SIGCHLD
            ignored = [signal.getsignal(number) is signal.SIG_IGN for number in numbers]
            return signal.SIGHUP in blocked, signal.SIGTERM in blocked, ignored

        with shoal.Pool(1) as pool:
            assert pool.apply(look) == (True, False, [True, True])
            log.seek(0)
            assert "look" in log.read()
        """
    ).check()


# ---- Ends ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("busy", [False, True])
def test_workers_end_with_the_program_whatever_else_lives_on(
    interpreter: Any, wait_until: Any, method: str, busy: bool
) -> None:
    """A process that the program has started later has copies of what the program has open."""
    process = interpreter.start(
        POOLS
        + """
def live_on():
    time.sleep(1000)

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    pool = context.Pool(2)
    pool.map(abs, range(10))
    if sys.argv[2] == "True":
        pool.map_async(time.sleep, [1000, 1000], 1)
    other = multiprocessing.get_context("fork").Process(target=live_on)
    other.start()
    pid = os.fork()
    if pid == 0:
        live_on()
    print(other.pid, pid, *(worker.pid for worker in pool._pool), flush=True)
    live_on()
""",
        method,
        str(busy),
        env=UNDER_SHOAL,
    )
    others, workers = (lambda pids: (pids[:2], pids[2:]))(
        [int(word) for word in process.stdout.readline().split()]
    )
    assert len(workers) == 2
    os.kill(process.pid, signal.SIGKILL)
    wait_until(lambda: not any(map(runs, workers)), "the workers' end")
    assert all(map(runs, others))
    interpreter.kill_group(process)
    process.communicate()


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_worker_has_a_successor_while_the_program_is_elsewhere(
    interpreter: Any, method: str
) -> None:
    interpreter(
        POOLS
        + """
if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    with context.Pool(1) as pool:
        first, = pool._pool
        ready = os.path.abspath("ready")
        os.kill(first.pid, signal.SIGKILL)
        first.join()
        result = pool.apply_async(open, (ready, "w"))  # an open file is no result
        while not os.path.exists(ready):  # nobody waits for the result
            time.sleep(0.005)
        assert first.exitcode == -signal.SIGKILL and not first.is_alive()
        second, = pool._pool
        assert second.pid != first.pid and second.is_alive() and second.exitcode is None
    assert not second.is_alive()
    assert multiprocessing.active_children() == []
""",
        method,
        env=UNDER_SHOAL,
    ).check()


def test_who_waits_for_all_children_takes_no_more_than_a_status(interpreter: Any) -> None:
    """`os.wait()` in the program meets workers, as with the standard library."""
    interpreter(
        POOLS
        + """
def taken():
    try:
        return os.waitpid(-1, os.WNOHANG)[0]
    except ChildProcessError:
        return 0

if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for _ in range(20):
            worker = pool._pool[0]
            worker.kill()
            while worker.is_alive():
                taken()
            assert pool.map(abs, [-1, -2]) == [1, 2]
    assert multiprocessing.active_children() == []
""",
        env=UNDER_SHOAL,
    ).check()


# ---- Seeds ---------------------------------------------------------------------------------------

DRAWING = (
    POOLS
    + """
import random

def draw(_):
    drawn = [random.random()]
    if "numpy" in sys.modules:
        drawn.append(float(sys.modules["numpy"].random.random()))
    time.sleep(0.02)
    return os.getpid(), tuple(drawn)

if __name__ == "__main__":
    if sys.argv[1] == "numpy":
        import numpy
    if sys.argv[2] != "unseeded":
        random.seed(int(sys.argv[2]))
        if sys.argv[1] == "numpy":
            numpy.random.seed(int(sys.argv[2]))
    if sys.argv[3] == "native":
        import shoal
        pools = shoal.Pool, shoal.Pool
    else:
        pools = multiprocessing.get_context("fork").Pool, ProcessPoolExecutor
    for make in pools:
        with make(1) as pool:
            print([drawn for _, drawn in pool.map(draw, range(3))])
    with pools[0](2) as pool:
        found = pool.map(draw, range(8), 1)
        first = {}
        for pid, drawn in found:
            first.setdefault(pid, drawn)
        print(sorted(first.values()) if len(first) == 2 else None)
"""
)


@pytest.mark.parametrize("kind", ["native", "drop-in"])
@pytest.mark.parametrize("library", ["random", "numpy"])
def test_a_program_that_seeds_gets_the_same_numbers_in_each_run(
    interpreter: Any, library: str, kind: str
) -> None:
    if library == "numpy":
        pytest.importorskip("numpy")
    env = UNDER_SHOAL if kind == "drop-in" else {}

    def lines(seed: str) -> list[str]:
        text: str = interpreter(DRAWING, library, seed, kind, env=env).check()
        return text.splitlines()

    one, again, other, unseeded = lines("42"), lines("42"), lines("43"), lines("unseeded")
    assert one[:2] == again[:2]
    assert one[2] == again[2] or "None" in (one[2], again[2])
    assert one[0] != one[1]  # two pools do not draw the same numbers
    streams = {value for text in (one, other, unseeded) for value in text}
    assert len(streams - {"None"}) == 9 - [one, other, unseeded].count("None")
    if one[2] != "None":
        first, second = eval(one[2])
        assert all(a != b for a, b in zip(first, second))


def test_the_programs_own_numbers_do_not_depend_on_its_pools(interpreter: Any) -> None:
    pytest.importorskip("numpy")
    source = """
        import multiprocessing, numpy, random, sys
        random.seed(1), numpy.random.seed(1)
        if sys.argv[1] == "with":
            with multiprocessing.get_context("fork").Pool(2) as pool:
                pool.map(abs, range(10))
        print(random.random(), numpy.random.random())
        """
    runs_ = {interpreter(source, how, env=UNDER_SHOAL).check() for how in ("with", "without")}
    assert len(runs_) == 1


def test_reseeding_can_be_switched_off(interpreter: Any) -> None:
    pytest.importorskip("numpy")
    source = """
        import multiprocessing, numpy
        def draw(_):
            return float(numpy.random.random())
        numpy.random.seed(7)
        with multiprocessing.get_context("fork").Pool(1) as pool:
            print(pool.map(draw, [1]))
        """
    stock = interpreter(source).check()
    assert interpreter(source, env={**UNDER_SHOAL, "SHOAL_RESEED": "0"}).check() == stock
    assert interpreter(source, env=UNDER_SHOAL).check() != stock


# ---- Which interpreter, what is loaded beforehand ------------------------------------------------


def test_set_executable_is_obeyed_by_pools_and_executors(interpreter: Any) -> None:
    wrapper = interpreter.folder / "python with a mark"
    wrapper.write_text(f'#!/bin/sh\nMARK=wrapped exec "{sys.executable}" "$@"\n')
    wrapper.chmod(0o755)
    source = (
        POOLS
        + """
if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    context.set_executable(sys.argv[1])
    for kind in ("pool", "executor"):
        with made(kind, context, 1) as pool:
            print(call(pool, os.getenv, "MARK"))
"""
    )
    assert same_under_both(interpreter, source, str(wrapper)) == "wrapped\nwrapped\n"


def test_set_forkserver_preload_is_obeyed_by_pools_and_executors(interpreter: Any) -> None:
    interpreter.folder.joinpath("heavy.py").write_text("import os\nLOADED_BY = os.getpid()\n")
    source = (
        POOLS
        + """
def loaded():
    import heavy
    return heavy.LOADED_BY == os.getppid()

if __name__ == "__main__":
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["heavy"])
    for kind in ("pool", "executor"):
        with made(kind, context, 1) as pool:
            print(call(pool, loaded))
"""
    )
    env = {"PYTHONPATH": str(interpreter.folder)}
    assert same_under_both(interpreter, source, env=env) == "True\nTrue\n"


# ---- Frozen applications -------------------------------------------------------------------------

FROZEN = (
    """
import multiprocessing, os, sys
sys.frozen, sys.executable = True, os.environ["APPLICATION"]
if "-c" in sys.argv:  # bundlers run the standard library's helpers so
    exec(sys.argv[-1])
    sys.exit()
if __name__ == "__main__":
    import multiprocessing.spawn
    multiprocessing.spawn.freeze_support()  # what bundlers call in the place of the package's own
"""
    + POOLS
    + """
if __name__ == "__main__":
    print("the main part", flush=True)
    context = multiprocessing.get_context("spawn")
    for kind in ("pool", "executor"):
        with made(kind, context) as pool:
            print(call(pool, abs, -1), flush=True)
    if len(sys.argv) > 1:
        import shoal, threading
        with shoal.Pool(1, start="spawn") as pool:
            print(pool.apply(abs, (-2,)), flush=True)
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
        with shoal.Pool(1) as pool:  # its template is no copy of this process, as that has threads
            print(pool.apply(abs, (-3,)), flush=True)
"""
)


def test_a_frozen_application_does_not_run_its_main_part_again(interpreter: Any) -> None:
    """An interpreter stands for the bundled application, as PyInstaller's bootloader would run it:
    the executable takes no options of Python's, and always runs the application.
    """
    path = interpreter.folder / "application.py"
    path.write_text(FROZEN)
    application = interpreter.folder / "application"
    application.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{path}" "$@"\n')
    application.chmod(0o755)
    env = {"APPLICATION": str(application)}
    stock = interpreter(path, env=env).check()
    assert stock == "the main part\n1\n1\n"
    assert interpreter(path, env={**env, **UNDER_SHOAL}).check() == stock
    both = interpreter(path, "native too", env={**env, **UNDER_SHOAL}).check()
    assert both == stock + "2\n3\n"
