# SPDX-License-Identifier: Apache-2.0
"""Locks, semaphores, events and conditions of shoal._core, seen from Python.

Each blocking call: releases the GIL, ends by Ctrl-C with nothing held, keeps its timeout, and is
not lost when its partner is killed.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from shoal._runtime._native import core
from shoal.errors import OwnerDiedWarning

FORK = multiprocessing.get_context("fork")


def blocked_calls() -> list[Any]:
    """Each way to wait for ever, as a pair of a name and a function that makes the call."""

    def lock() -> Callable[[], object]:
        held = core.Lock()
        held.acquire()
        return held.acquire

    def rlock() -> Callable[[], object]:
        held = core.RLock()
        thread = threading.Thread(target=held.acquire)
        thread.start()
        thread.join()
        return held.acquire

    def condition() -> Callable[[], object]:
        guard = core.Lock()
        waiting = core.Condition(guard)

        def wait() -> None:
            with guard:
                waiting.wait()

        return wait

    return [
        pytest.param(lock, id="Lock"),
        pytest.param(rlock, id="RLock"),
        pytest.param(lambda: core.Semaphore(0).acquire, id="Semaphore"),
        pytest.param(lambda: core.Event().wait, id="Event"),
        pytest.param(condition, id="Condition"),
    ]


@pytest.mark.parametrize("make", blocked_calls())
def test_ctrl_c_ends_a_wait_with_one_exception(make: Callable[[], Callable[[], object]]) -> None:
    call = make()
    for delay in (0.0, 0.001, 0.05):
        timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            timer.start()
            call()
        timer.join()


@pytest.mark.parametrize("make", blocked_calls())
def test_other_threads_run_while_one_waits(make: Callable[[], Callable[[], object]]) -> None:
    call = make()
    counted = 0
    stop = threading.Event()

    def count() -> None:
        nonlocal counted
        while not stop.is_set():
            counted += 1
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=count)
    threading.Timer(0.1, stop.set).start()
    with pytest.raises(KeyboardInterrupt):
        thread.start()
        call()
    thread.join()
    assert counted > 1000


def test_timeouts_are_kept() -> None:
    lock = core.Lock()
    assert lock.acquire()
    waits: list[Callable[[float], object]] = [
        lambda t: lock.acquire(timeout=t),
        lambda t: core.Semaphore(0).acquire(timeout=t),
        lambda t: core.Event().wait(t),
    ]
    for wait in waits:
        begin = time.monotonic()
        assert wait(0.15) is False
        assert time.monotonic() - begin >= 0.15
        assert wait(0) is False
        assert wait(-1) is False
    assert lock.acquire(block=False) is False
    lock.release()


def test_a_lock_excludes_processes() -> None:
    lock = core.Lock()
    shared = memoryview(mmap.mmap(-1, 8)).cast("q")

    def add() -> None:
        for _ in range(3000):
            with lock:
                shared[0] += 1

    processes = [FORK.Process(target=add) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert shared[0] == 9000


def start_a_holder(lock: Any) -> Any:
    """A process that has locked `lock`, and keeps it until it is killed."""
    ready = core.Event()

    def hold() -> None:
        lock.acquire()
        ready.set()
        while True:
            signal.pause()

    process = FORK.Process(target=hold)
    process.start()
    assert ready.wait(30)
    return process


def test_the_next_owner_of_a_dead_process_lock_is_told() -> None:
    lock = core.Lock()
    process = start_a_holder(lock)
    assert lock.acquire(timeout=0.05) is False
    process.kill()
    with pytest.warns(OwnerDiedWarning, match=f"process {process.pid} died"):
        assert lock.acquire(timeout=30)
    assert lock.owner_died
    process.join()
    lock.release()
    assert lock.acquire()
    assert not lock.owner_died
    lock.release()


@pytest.mark.parametrize("make", [core.Lock, core.RLock])
def test_a_lock_of_a_dead_process_goes_to_one_that_never_waits(make: Callable[[], Any]) -> None:
    lock = make()
    process = start_a_holder(lock)
    assert lock.acquire(block=False) is False
    process.kill()
    process.join()
    with pytest.warns(OwnerDiedWarning, match=f"process {process.pid} died"):
        while not lock.acquire(block=False):
            pass
    lock.release()


def test_another_process_may_release_a_lock() -> None:
    lock = core.Lock()
    lock.acquire()
    process = FORK.Process(target=lock.release)
    process.start()
    assert lock.acquire(timeout=30)
    process.join()
    lock.release()
    with pytest.raises(ValueError, match="too many times"):
        lock.release()


def test_a_recursive_lock_belongs_to_its_thread() -> None:
    lock = core.RLock()
    assert lock.acquire()
    assert lock.acquire()
    results: list[bool] = []
    thread = threading.Thread(target=lambda: results.append(lock.acquire(block=False)))
    thread.start()
    thread.join()
    assert results == [False]
    lock.release()
    lock.release()
    with pytest.raises(AssertionError, match="not owned"):
        lock.release()


def test_semaphore_counts_between_processes() -> None:
    items = core.Semaphore(0, 5)
    process = FORK.Process(target=lambda: items.release(3))
    process.start()
    for _ in range(3):
        assert items.acquire(timeout=30)
    assert items.acquire(block=False) is False
    process.join()
    items.release(5)
    with pytest.raises(ValueError, match="too many times"):
        items.release()
    assert items.value == 5


def test_condition_hands_over_between_processes() -> None:
    lock = core.RLock()
    condition = core.Condition(lock)
    turn = memoryview(mmap.mmap(-1, 8)).cast("q")

    def play(mine: int) -> None:
        for _ in range(200):
            with lock, lock:  # unlocked as often as it is locked, and locked again
                while turn[0] != mine:
                    condition.wait(30)
                turn[0] = 1 - mine
                condition.notify()

    process = FORK.Process(target=play, args=(1,))
    process.start()
    play(0)
    process.join()
    assert process.exitcode == 0
    with pytest.raises(AssertionError, match="must acquire"):
        core.Condition(core.Lock()).wait()
    with pytest.raises(TypeError, match="Lock or RLock"):
        core.Condition(threading.Lock())


def test_an_event_wakes_all() -> None:
    event = core.Event()
    processes = [
        FORK.Process(target=lambda: os._exit(0 if event.wait(30) else 1)) for _ in range(3)
    ]
    for process in processes:
        process.start()
    time.sleep(0.05)
    event.set()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert event.is_set()
    event.clear()
    assert not event.is_set()


def test_a_pulse_between_two_slices_of_a_wait_is_not_lost() -> None:
    """The main thread waits in slices. Here each pulse comes between two of them: a handler of a
    signal runs only there. Several pulses, as the first one may precede the wait.
    """
    event = core.Event()

    def pulse(*_: object) -> None:
        event.set()
        event.clear()

    before = signal.signal(signal.SIGALRM, pulse)
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    try:
        assert event.wait(10)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_handle_names_the_same_object() -> None:
    lock = core.Lock()
    same = core.Lock(lock.handle)
    lock.acquire()
    assert same.acquire(block=False) is False
    assert same.owner == os.getpid()
    lock.release()
    with pytest.raises(RuntimeError, match="no process holds this"):
        core.Lock(64)
    with pytest.raises(RuntimeError, match="no semaphore"):
        core.Semaphore(0, 0, lock.handle)


@pytest.mark.skipif(
    sys.version_info[:2] == (3, 14),
    reason="3.14 looks for signals between __enter__ and the body: threading.Lock is left held too",
)
def test_interrupts_at_random_never_leave_a_lock_held() -> None:
    lock = core.Lock()
    stop = threading.Event()
    armed: list[bool] = []

    def interrupt() -> None:
        while not stop.is_set():
            if armed:
                os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.0003)

    class Interrupted(Exception):
        pass

    def handler(number: int, frame: object) -> None:
        if armed:  # not while the last one is being handled
            armed.clear()
            raise Interrupted

    before = signal.signal(signal.SIGUSR1, handler)
    thread = threading.Thread(target=interrupt)
    try:
        seen = 0
        thread.start()
        end = time.monotonic() + 2
        while time.monotonic() < end or seen <= 10:  # a busy machine takes longer
            try:
                armed.append(True)
                for _ in range(200):
                    with lock:
                        pass
                armed.clear()
            except Interrupted:
                seen += 1
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        stop.set()
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    assert lock.acquire(block=False), "an interrupted `with` left the lock held"
    lock.release()
