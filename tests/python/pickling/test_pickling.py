# SPDX-License-Identifier: Apache-2.0
"""`shoal._pickling._pickler`: plain pickle's results, and what it adds."""

from __future__ import annotations

import collections
import copyreg
import datetime
import decimal
import enum
import fractions
import functools
import os
import pickle
import sys
import threading
import types
import xml.dom
from multiprocessing.reduction import ForkingPickler
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shoal._pickling import _pickler


class Point:
    def __init__(self, x: Any) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and other.x == self.x

    __hash__ = object.__hash__

    def method(self) -> Any:
        return self.x


class Color(enum.Enum):
    RED = 1


class Hooked:
    calls: list[str] = []

    def __reduce__(self) -> Any:
        Hooked.calls.append("reduce")
        return Hooked, ()


class Registered:
    pass


def back(obj: Any) -> Any:
    data, buffers = _pickler.dumps(obj)
    return _pickler.loads(data, buffers)


VALUES = [
    Point(1),
    [Point(1)] * 2,
    Color.RED,
    fractions.Fraction(1, 3),
    decimal.Decimal("1.5"),
    datetime.timedelta(3),
    collections.OrderedDict(a=1),
    collections.Counter("aab"),
    functools.partial(max, 1),
    ValueError,
    {1, 2},
    frozenset({3}),
    b"x" * 200_000,
    bytearray(b"y" * 200_000),
    "z" * 200_000,
    2**200,
]


@pytest.mark.parametrize("value", VALUES, ids=lambda v: type(v).__name__)
def test_values_come_back_as_pickle_brings_them_back(value: Any) -> None:
    result, usual = back(value), pickle.loads(pickle.dumps(value, 5))
    assert type(result) is type(usual)
    if isinstance(value, functools.partial):
        assert result.args == usual.args
    else:
        assert result == usual


def test_small_values_pickle_to_the_same_bytes_as_pickle() -> None:
    for value in (1, (1, "a"), [Point(1)], Color.RED):
        assert _pickler.dumps(value) == (pickle.dumps(value, 5), None)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.text()
        | st.binary()
        | st.builds(Point, st.text()),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.builds(Point, inner),
        max_leaves=20,
    )
)
def test_any_nest_of_values_comes_back(value: Any) -> None:
    assert back(value) == value


def test_shared_objects_stay_shared_next_to_a_lambda() -> None:
    shared = [1]
    a, _function, b = back([shared, lambda: shared, shared])
    assert a is b


def test_two_lambdas_share_a_cell_on_the_other_side_too() -> None:
    def pair() -> Any:
        n = 0

        def up() -> int:
            nonlocal n
            n += 1
            return n

        return up, lambda: n

    up, get = back(pair())
    assert (up(), up(), get()) == (1, 2, 2)


def test_a_local_class_is_the_same_class_when_it_comes_home() -> None:
    class Local:
        value = 1

    Local.value = 2
    data, _ = _pickler.dumps(Local())
    Local.value = 3
    assert type(_pickler.loads(data)) is Local and Local.value == 3


def test_hooks_run_once_also_when_a_lambda_is_in_the_same_message() -> None:
    Hooked.calls.clear()
    _pickler.dumps([Hooked(), lambda: 1])
    assert Hooked.calls == ["reduce"]


def test_a_failure_leaves_nothing_behind_for_the_next_dump() -> None:
    for _ in range(3):
        with pytest.raises(TypeError, match="cannot pickle"):
            _pickler.dumps([b"x" * 100_000, threading.Lock()])
        assert back([1, 2]) == [1, 2]


def test_a_lock_in_an_argument_is_an_error_as_in_pickle() -> None:
    with pytest.raises(TypeError, match="cannot pickle"):
        _pickler.dumps(threading.Lock())


def test_what_cloudpickle_sends_travels_in_arguments_too() -> None:
    table = {1: "one"}
    assert back(xml.dom) is xml.dom and back([os, {"m": pickle}]) == [os, {"m": pickle}]
    assert list(back(table.items())) == [(1, "one")]  # a list, once managers are imported
    assert back(types.MappingProxyType(table)) == table
    assert back(memoryview(b"bytes")) == b"bytes"
    assert back(Point.method.__code__) == Point.method.__code__
    assert back(property(len)).fget is len


def test_a_module_that_only_this_process_has_is_an_error() -> None:
    with pytest.raises(TypeError, match="cannot pickle 'module'"):
        _pickler.dumps(types.ModuleType("made_by_hand"))


def test_results_of_the_drop_in_refuse_what_the_standard_library_does() -> None:
    for refused in (os, memoryview(b"")):
        with pytest.raises(TypeError, match="cannot pickle"):
            _pickler.dumps(refused, by_name=True)


@pytest.mark.parametrize("content", [os, threading.Lock()])
def test_names_that_an_import_hook_put_into_a_module_travel_with_functions(content: Any) -> None:
    # As pytest does where it rewrites assert statements; the other side imports the plain module.
    module = sys.modules[__name__]

    def local() -> Any:
        return placeholder  # type: ignore[name-defined]  # noqa: F821

    local.__code__ = local.__code__.replace(co_names=("@injected",))
    setattr(module, "@injected", content)
    try:
        data, buffers = _pickler.dumps(local)
    finally:
        delattr(module, "@injected")
    there = _pickler.loads(data, buffers)
    assert type(there()) is type(content)
    delattr(module, "@injected")


def test_a_hook_may_itself_dump() -> None:
    class Nested:
        def __reduce__(self) -> Any:
            return Point, (_pickler.dumps(Point(1))[0],)

    assert _pickler.loads(back(Nested()).x) == Point(1)


def test_copyreg_registrations_are_honoured_even_late() -> None:
    _pickler.dumps(Registered())
    copyreg.pickle(Registered, lambda obj: (Point, ("copyreg",)))  # type: ignore[arg-type, return-value]
    try:
        assert back(Registered()) == Point("copyreg")
        ForkingPickler.register(Registered, lambda obj: (Point, ("forking",)))
        assert back(Registered()) == Point("forking")
    finally:
        del copyreg.dispatch_table[Registered]
        ForkingPickler._extra_reducers.pop(Registered, None)  # type: ignore[attr-defined]
    assert type(back(Registered())) is Registered


def test_large_picklers_are_not_kept() -> None:
    _pickler._idle.clear()
    _pickler.dumps([Point(i) for i in range(10_000)])
    assert not _pickler._idle
    _pickler.dumps(Point(1))
    assert len(_pickler._idle) == 1


def test_threads_do_not_share_picklers() -> None:
    results: list[Any] = []

    def work(n: int) -> None:
        for i in range(300):
            if back([Point(n), lambda: n, i])[0] != Point(n):
                results.append((n, i))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == []


def test_large_arrays_go_out_of_band_and_come_back_writable() -> None:
    numpy = pytest.importorskip("numpy")
    source = numpy.arange(20_000.0)
    fixed = source.copy()
    fixed.flags.writeable = False
    for array in (source, fixed, source.reshape(100, 200).T, source[::2], source.astype("M8[s]")):
        data, buffers = _pickler.dumps(Point(array))
        assert buffers is not None and len(data) < 1000
        for received in (buffers, [bytes(b.raw()) for b in buffers]):
            result = _pickler.loads(data, received).x
            assert (result == array).all() and result.dtype == array.dtype
            assert result.flags.writeable
            assert result.flags.f_contiguous or not array.flags.f_contiguous


def test_small_and_object_arrays_are_in_band() -> None:
    numpy = pytest.importorskip("numpy")
    for array in (numpy.arange(3), numpy.array([None, "a"] * 20_000, dtype=object), numpy.array(1)):
        data, buffers = _pickler.dumps(Point(array))
        assert buffers is None
        assert (_pickler.loads(data).x == array).all()


@pytest.mark.parametrize("dtype", [">i4", "<i4", ">f8", ">c16", ">U3", ">M8[s]"])
@pytest.mark.parametrize("size", [0, 3, 100_000])
def test_an_array_inside_keeps_its_byte_order(dtype: str, size: int) -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(size).astype(dtype)
    data, buffers = _pickler.dumps((Point(array),))
    (found,) = _pickler.loads(data, buffers)
    assert found.x.dtype == array.dtype and found.x.dtype.byteorder == array.dtype.byteorder
    assert (found.x == array).all() and found.x.flags.writeable
