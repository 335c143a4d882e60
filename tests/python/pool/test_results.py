# SPDX-License-Identifier: Apache-2.0
"""Large values and numpy arrays, both ways, under every start method."""

from __future__ import annotations

import pytest
import tasks
from pool_kinds import SHOAL, WATCHDOG, make_pool

numpy = pytest.importorskip("numpy")
pytestmark = WATCHDOG


@pytest.fixture(params=SHOAL, scope="module")
def pool(request):
    with make_pool(request.param) as pool:
        yield pool


def _zeros(count):
    return bytes(count)


def _range(count):
    return numpy.arange(float(count))


def _facts_and_write(array):
    facts = array.flags.writeable, array.ctypes.data % 64, float(array.sum())
    array[:] = 1
    return facts


def test_results_and_arguments_of_200_mb_arrive(pool):
    size = 200_000_000
    assert len(pool.apply(_zeros, (size,))) == size
    assert pool.apply(len, (bytes(size),)) == size


@pytest.mark.parametrize("count", [0, 1, 100, 8191, 8192, 8193, 1_000_000])
def test_arrays_arrive_writable_aligned_and_equal(pool, count):
    array = pool.apply(_range, (count,))
    assert array.dtype == float
    assert numpy.array_equal(array, numpy.arange(float(count)))
    assert array.flags.writeable
    if array.nbytes >= 65_536:
        assert array.ctypes.data % 64 == 0
    array += 1  # it is the caller's own
    assert array.sum() == count * (count + 1) / 2


def test_array_arguments_are_the_tasks_own(pool):
    array = numpy.arange(100_000.0)
    assert pool.apply(_facts_and_write, (array,)) == (True, 0, array.sum())
    assert array[5] == 5, "the task wrote into the caller's array"


def test_arrays_outlive_their_pool():
    with make_pool("shoal-zygote") as pool:
        arrays = pool.map(_range, [100_000] * 4)
    for array in arrays:
        array *= 2
        assert array[-1] == 199_998


def test_arrays_in_containers_and_of_other_kinds_arrive(pool):
    values = {
        "strided": numpy.arange(200_000)[::2],
        "fortran": numpy.asfortranarray(numpy.ones((300, 400))),
        "structured": numpy.zeros(1000, dtype=[("a", int), ("b", float)]),
        "objects": numpy.array([1, "a", None], dtype=object),
        "times": numpy.arange(10).astype("datetime64[s]"),
    }
    got = pool.apply(tasks.echo, (values,))
    for name, array in values.items():
        assert numpy.array_equal(got[name], array), name
        assert got[name].dtype == array.dtype
