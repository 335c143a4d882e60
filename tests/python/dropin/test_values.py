# SPDX-License-Identifier: Apache-2.0
"""Value, Array, RawValue and RawArray in shared memory; also what CPython's suites leave open."""

from __future__ import annotations

import ctypes
import multiprocessing
import multiprocessing.sharedctypes
import threading
import time
from typing import Any

import pytest
import shoal
import shoal.multiprocessing as mp
from shoal._runtime._native import core

FORK: Any = mp.get_context("fork")
CODES = "bBhHiIlLqQfd"


class Point(ctypes.Structure):
    _fields_ = [("x", ctypes.c_double), ("y", ctypes.c_int)]


@pytest.mark.parametrize("code", CODES)
def test_a_value_reads_and_writes_what_ctypes_does(code: str) -> None:
    ours = FORK.Value(code)
    stock: Any = multiprocessing.sharedctypes.typecode_to_type[code]()  # type: ignore[attr-defined]
    assert type(ours).__module__ == "shoal._dropin._values"
    assert isinstance(ours, multiprocessing.sharedctypes.Synchronized)
    for value in (0, 1, -1, 127, 255, -129, 2**31, 2**63, -(2**63), 2**70, 1.5, True, "x", None):
        errors = []
        for each in (ours, stock):
            try:
                each.value = value
                errors.append(None)
            except Exception as error:
                errors.append((type(error), str(error)))
        assert errors[0] == errors[1], value
        assert ours.value == stock.value and type(ours.value) is type(stock.value), value
    assert not ours.get_lock().locked()


@pytest.mark.parametrize(
    "type_", [ctypes.c_bool, ctypes.c_char, ctypes.c_wchar, ctypes.c_longdouble]
)
def test_types_that_ctypes_converts(type_: Any) -> None:
    value = FORK.Value(type_)
    new = {ctypes.c_bool: True, ctypes.c_char: b"x", ctypes.c_wchar: "x"}.get(type_, 2.5)
    value.value = new
    assert value.value == new
    if type_ is not ctypes.c_bool:  # everything is true or false
        with pytest.raises(TypeError):
            value.value = object()
    assert not value.get_lock().locked()


def test_structures_and_arrays() -> None:
    point = FORK.Value(Point, 1.5, 2)
    array = FORK.Array(Point, 3)
    numbers = FORK.Array("d", [1, 2, 3])
    text = FORK.Array("c", b"hello")

    def change() -> None:
        with point.get_lock():
            point.x += 1
        array[1].y = 7
        numbers[:2] = [5, 6]
        text.value = b"bye"

    process = FORK.Process(target=change)
    process.start()
    process.join()
    assert process.exitcode == 0
    assert (point.x, point.y, array[1].y, numbers[:], text.value) == (2.5, 2, 7, [5, 6, 3], b"bye")


def test_memory_is_zeroed_when_it_is_used_again_and_aligned() -> None:
    for _ in range(50):
        raw = FORK.RawArray("B", 1000)
        assert bytes(raw) == bytes(1000)
        assert ctypes.addressof(raw) % 64 == 0
        ctypes.memset(ctypes.addressof(raw), 0xFF, 1000)


def test_the_lock_given_is_the_lock_used() -> None:
    lock = FORK.Lock()
    value = FORK.Value("i", lock=lock)
    assert value.get_lock() is lock
    raw = FORK.Value("i", lock=False)
    assert not hasattr(raw, "get_lock") and not hasattr(raw, "get_obj")
    with pytest.raises(AttributeError, match="has no method 'acquire'"):
        FORK.Value("i", lock="navalue")
    foreign = FORK.Value("i", 3, lock=threading.RLock())
    assert type(foreign) is multiprocessing.sharedctypes.Synchronized and foreign.value == 3


def test_a_read_waits_for_who_has_the_lock() -> None:
    value = FORK.Value("i", 1)
    got: list[int] = []
    reader = threading.Thread(target=lambda: got.append(value.value))
    with value.get_lock():
        value.value = 2
        assert value.value == 2  # the owner's own read does not wait
        reader.start()
        time.sleep(0.05)
        assert got == []
        value.value = 3
    reader.join()
    assert got == [3]


def test_increments_with_the_lock_lose_nothing() -> None:
    value = FORK.Value("q", 0)

    def add() -> None:
        for _ in range(2000):
            with value.get_lock():
                value.value += 1

    processes = [FORK.Process(target=add) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert value.value == 6000


def test_readers_never_see_the_inside_of_a_locked_change() -> None:
    value = FORK.Value("q", 0)
    stop = FORK.RawValue("i", 0)

    def change() -> None:
        while not stop.value:
            with value.get_lock():
                value.value += 1  # odd: half-way
                value.value += 1

    process = FORK.Process(target=change)
    process.start()
    end = time.monotonic() + 1
    while time.monotonic() < end:
        assert value.value % 2 == 0
    stop.value = 1
    process.join()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_values_reach_fresh_children_and_are_freed(interpreter, method: str) -> None:
    interpreter(
        """
        import ctypes
        import multiprocessing as mp
        import sys

        class Point(ctypes.Structure):
            _fields_ = [("x", ctypes.c_double), ("y", ctypes.c_int)]

        def change(value, array, raw, point, flag):
            with value.get_lock():
                value.value += 1
            array[2] = 9
            raw.value = 1.25
            point.x = 5
            flag.set()
            child = mp.get_context(sys.argv[1]).Process(target=change_again, args=(value, array))
            child.start()
            child.join()

        def change_again(value, array):
            value.value += 1
            array[0] = 8

        if __name__ == "__main__":
            from shoal._runtime._native import core
            import shoal

            c = mp.get_context(sys.argv[1])
            made = c.Value("i", 40), c.Array("i", 3), c.RawValue("d"), c.Value(Point), shoal.Flag()
            process = c.Process(target=change, args=made)
            process.start()
            process.join()
            assert process.exitcode == 0
            value, array, raw, point, flag = made
            assert (value.value, array[:], raw.value, point.x) == (42, [8, 0, 9], 1.25, 5)
            assert flag.is_set()
            del made, value, array, raw, point, flag
            process.close()
            core.reap()
            assert core.arena_statistics()["blocks_shared"] == 0
        """,
        method,
        env={"SHOAL_RUN": "1"},
    ).check()


def test_large_arrays_are_freed() -> None:
    before = core.arena_statistics()["in_use"]
    array = FORK.RawArray("B", 50 << 20)
    array[-1] = 1
    # what earlier tests left for others to free may go meanwhile
    assert core.arena_statistics()["in_use"] >= before + (49 << 20)
    del array
    assert core.arena_statistics()["in_use"] <= before + (1 << 20)
    with pytest.raises(shoal.MemoryExhausted):
        FORK.RawArray("B", 1 << 50)


@pytest.mark.parametrize("make", [mp.Value, mp.RawValue, mp.Array, mp.RawArray])
def test_a_type_that_ctypes_does_not_have_is_told(make: Any) -> None:
    for wrong in ("x", "", object):
        with pytest.raises(TypeError, match="bad typecode|unsupported operand"):
            make(wrong, [])
