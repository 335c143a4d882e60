# SPDX-License-Identifier: Apache-2.0
"""The garbage collector sees through shoal's objects: what only circles hold is freed, and so is
all that a program has when it ends. Files among it are written out.
"""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import shoal

HELD = {
    "an open pool": "pool = Pool(1); result = pool.map_async(task, range(3))",
    "a closed pool": "pool = Pool(1); pool.map(task, [1]); pool.close(); pool.join()",
    "an iterator": "pool = Pool(1); results = pool.imap(task, range(30)); next(results)",
    "a caught error": """
pool = Pool(1)
try:
    pool.map(len, [1, 2])
except TypeError as error:
    caught = error
""",
    "a spawn pool": "pool = get_context('spawn').Pool(1); pool.map(task, [1])",
    "an executor": "executor = ProcessPoolExecutor(1); executor.submit(task, 1).result()",
    "a queue": "queue = Queue(); queue.put(1); queue.held = task",
    "a manager": "manager = Manager(); shared = manager.dict(); shared[1] = task",
    "a process": "process = Process(target=task, args=(1,)); process.start()",
}


@pytest.mark.parametrize("held", HELD)
def test_files_are_written_when_the_program_ends(interpreter, tmp_path, held: str) -> None:
    target = tmp_path / "out"
    program = f"""
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import Manager, Pool, Process, Queue, get_context

def task(value):
    return value

if __name__ == "__main__":
    file = open(sys.argv[1], "w")
    file.write("written")
    exec({HELD[held]!r}, globals())
"""
    interpreter(program, str(target), env={"SHOAL_RUN": "1"}).check()
    assert target.read_text() == "written"


def test_a_fresh_worker_ends_as_any_interpreter(interpreter, tmp_path) -> None:
    program = """
    import multiprocessing, os, sys
    log = open(os.path.join(sys.argv[1], str(os.getpid())), "w")

    class Held:
        def __del__(self, write=os.write):
            write(1, b"freed\\n")

    held = Held()

    def note(value):
        log.write("noted")
        return held is not None

    if __name__ == "__main__":
        held = None
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.map(note, [1, 2], chunksize=1) == [True, True]
            pool.close()
            pool.join()
    """
    for variables in ({}, {"SHOAL_RUN": "1"}):
        folder = tmp_path / f"logs{len(variables)}"
        folder.mkdir()
        assert interpreter(program, str(folder), env=variables).check() == "freed\nfreed\n"
        assert sorted(log.read_text() for log in folder.iterdir()) == ["", "notednoted"]


class Thing:
    pass


def fail(value: Any) -> None:
    raise ValueError(value)


def test_failed_calls_do_not_keep_the_frames_of_their_callers() -> None:
    def call(way: str) -> weakref.ref[Thing]:
        thing = Thing()
        try:
            if way == "map":
                pool.map(fail, [1, 2])
            elif way == "get":
                pool.apply_async(fail, (1,)).get()
            elif way == "imap":
                list(pool.imap(fail, [1, 2]))
            elif way == "submit":
                executor.submit(fail, 1).result()
            else:
                list(executor.map(fail, [1, 2]))
        except ValueError as error:
            caught = error  # noqa: F841 (a circle: the frame, the error, its traceback)
        return weakref.ref(thing)

    with shoal.Pool(1) as pool, shoal.Executor(1) as executor:
        for way in ("map", "get", "imap", "submit", "executor map"):
            things = [call(way) for _ in range(20)]
            gc.collect()
            assert not any(thing() for thing in things), way


def test_an_engine_in_a_circle_is_collected() -> None:
    pool = shoal.Pool(1)
    pool.map(abs, range(3))
    pool.terminate()
    pool.join()
    pool._engine.definitions.circle = pool  # as a global of the main module would be
    engine = weakref.ref(pool._engine)
    del pool
    gc.collect()
    assert engine() is None
