# SPDX-License-Identifier: Apache-2.0
"""Atomic and Flag, and native objects in tasks and queues of the session."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from typing import Any

import pytest
import shoal
import shoal.multiprocessing as mp
from hypothesis import given
from hypothesis import strategies as st

FORK: Any = mp.get_context("fork")
INT64 = st.integers(-(2**63), 2**63 - 1)


def wrapped(number: int) -> int:
    return (number + 2**63) % 2**64 - 2**63


@given(INT64, INT64)
def test_int64_is_arithmetic_modulo_2_to_the_64(a: int, b: int) -> None:
    atomic = shoal.Atomic(a)
    assert atomic.add(b) == a and atomic.value == wrapped(a + b)
    assert atomic.sub(b) == wrapped(a + b) and atomic.value == a
    assert atomic.max(b) == a and atomic.value == max(a, b)
    assert atomic.exchange(a) == max(a, b) and atomic.min(b) == a and atomic.load() == min(a, b)
    assert atomic.compare_exchange(a, b) == (a == min(a, b))


def test_each_kind_takes_its_own_values_only() -> None:
    assert shoal.Atomic(True).kind == "bool"
    assert shoal.Atomic(0.0).kind == "float64"
    assert shoal.Atomic(0).kind == "int64"
    natural = shoal.Atomic(2**64 - 1, "uint64")
    assert natural.add(1) == 2**64 - 1 and natural.value == 0
    flag = shoal.Atomic(False)
    assert flag.exchange(True) is False and flag.value is True
    real = shoal.Atomic(1.5)
    assert real.add(2) == 1.5 and real.value == 3.5 and real.min(-1.0) == 3.5
    for atomic, wrong in ((natural, -1), (shoal.Atomic(0), 2**63)):
        with pytest.raises(OverflowError):
            atomic.store(wrong)
    for atomic, wrong in ((flag, 1), (real, "1"), (shoal.Atomic(0), 1.0)):
        with pytest.raises(TypeError, match="cannot take a"):
            atomic.value = wrong
    with pytest.raises(TypeError, match="cannot be added to"):
        flag.add()
    with pytest.raises(ValueError, match="kind is"):
        shoal.Atomic(0, "int32")


def test_additions_of_processes_are_not_lost() -> None:
    total = shoal.Atomic(0)

    def add() -> None:
        for _ in range(5000):
            total.add()

    processes = [FORK.Process(target=add) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert total.value == 15000


def test_wait_ends_with_a_change_a_notify_a_timeout_or_ctrl_c() -> None:
    turn = shoal.Atomic(0)

    def play(mine: int) -> None:
        for _ in range(200):
            while turn.value != mine:
                turn.wait(1 - mine)
            turn.store(1 - mine)

    process = FORK.Process(target=play, args=(1,))
    process.start()
    play(0)
    process.join()
    assert turn.wait(turn.value, timeout=0.01) is False
    assert turn.wait(99) is True
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        timer.start()
        turn.wait(turn.value)
    timer.join()
    results: list[bool] = []
    waiter = threading.Thread(target=lambda: results.append(turn.wait(turn.value)))
    waiter.start()
    while not results:
        turn.notify()
        time.sleep(0.001)
    waiter.join()
    assert results == [True]


def test_a_change_between_two_slices_of_a_wait_ends_it() -> None:
    """A handler of a signal runs between two slices of the main thread's wait."""
    turn = shoal.Atomic(0)

    def change_and_change_back(*_: object) -> None:
        turn.add()
        turn.sub()

    before = signal.signal(signal.SIGALRM, change_and_change_back)
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    try:
        assert turn.wait(0, 10)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_flag_stops_a_search_in_other_processes() -> None:
    found = shoal.Flag()
    looked = shoal.Atomic(0)

    def search() -> None:
        while not found.is_set():
            looked.add()

    process = FORK.Process(target=search)
    process.start()
    while looked.value == 0:
        time.sleep(0.001)
    found.set()
    process.join()
    assert found.wait() is True
    found.clear()
    assert found.wait(0.01) is False


def use(lock: Any, total: Any, flag: Any, condition: Any) -> Any:
    with lock, condition:
        total.add(1)
    flag.set()
    return lock


@pytest.mark.parametrize("method", ["fork", "spawn", "zygote"])
def test_native_objects_travel_in_tasks_and_results(method: str) -> None:
    lock, total, flag, condition = shoal.Lock(), shoal.Atomic(0), shoal.Flag(), shoal.Condition()
    with shoal.Pool(2, start=method) as pool:
        results = pool.starmap(use, [(lock, total, flag, condition)] * 20)
    assert total.value == 20 and flag.is_set()
    assert {result.handle for result in results} == {lock.handle}


def test_objects_mean_nothing_outside_of_the_session(interpreter) -> None:
    data = pickle.dumps(shoal.Lock())
    interpreter(f"""
        import pickle
        import shoal

        for prepare in (lambda: None, shoal.Lock):
            prepare()
            try:
                pickle.loads({data!r})
            except RuntimeError as error:
                assert "Give it to the process when that is started" in str(error)
            else:
                raise AssertionError
    """).check()


def test_representations_say_the_state() -> None:
    lock = shoal.Lock()
    assert repr(lock) == "<shoal.Lock free>"
    with lock:
        assert repr(lock) == f"<shoal.Lock locked by process {os.getpid()}, this thread>"
    assert repr(shoal.Atomic(3)) == "<shoal.Atomic int64 3>"
    assert repr(shoal.Flag()) == "<shoal.Flag unset>"
    assert repr(shoal.Semaphore(2)) == "<shoal.Semaphore value=2>"
    assert repr(shoal.Barrier(2)) == "<shoal.Barrier 0/2 waiting>"
