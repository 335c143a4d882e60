# SPDX-License-Identifier: Apache-2.0
"""numpy's arrays and scalars through the codec: values, dtypes, ownership of memory."""

from __future__ import annotations

import copyreg
import gc
import os
from typing import Any

import pytest
from shoal._pickling import _codec
from shoal._runtime._native import core

np = pytest.importorskip("numpy")

PLAIN = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "g", "F", "D", "G"]
NAMED = [">i4", ">f8", "M8[ns]", "m8[25us]", "U3", "S5", "q"]


def round_trip(value: Any, copy: bool = False) -> Any:
    return core.codec_encode(value).decode(copy)


def check(array: Any) -> None:
    message = core.codec_encode(array)
    for copy in (True, False):
        back = message.decode(copy)
        assert type(back) is type(array)
        assert back.dtype == array.dtype
        assert back.shape == array.shape
        assert back.tobytes() == array.tobytes()
        assert back.flags.writeable and back.flags.aligned
        assert not np.shares_memory(back, array)


def refuse(*_: Any) -> Any:
    raise AssertionError("this should not be pickled")


@pytest.fixture(params=[3, 20_000], ids=["small", "large"])
def size(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.mark.parametrize("dtype", PLAIN + NAMED)
def test_arrays_of_every_plain_dtype_take_the_fast_path(dtype: str, size: int) -> None:
    array = np.arange(size).astype("i4" if dtype[0] in "Mm" else dtype).astype(dtype)
    core.codec_set_pickler(refuse, refuse)
    try:
        check(array)
        check(array.reshape(1, size, 1))
    finally:
        _codec.connect_pickler()


@pytest.mark.parametrize("dtype", PLAIN)
def test_scalars_keep_their_type(dtype: str) -> None:
    scalar = np.dtype(dtype).type(1)
    core.codec_set_pickler(refuse, refuse)
    try:
        back = round_trip([scalar])[0]
    finally:
        _codec.connect_pickler()
    assert type(back) is type(scalar) and back == scalar


def test_shapes_and_orders(size: int) -> None:
    base = np.arange(size * 6.0).reshape(size, 2, 3)
    for array in (
        base,
        np.asfortranarray(base),
        base[::2],
        base[:, ::-1],
        base.T,
        base[:, 0],
        np.broadcast_to(np.arange(3.0), (size, 3)),
        np.zeros((0, 5)),
        np.array(3.0),
    ):
        check(array)
    assert round_trip(np.asfortranarray(base)).flags.f_contiguous


def test_read_only_arrays_arrive_writable(size: int) -> None:
    array = np.arange(float(size))
    array.flags.writeable = False
    check(array)


@pytest.mark.parametrize(
    "make",
    [
        lambda n: np.array([{"a": 1}] * n, dtype=object),
        lambda n: np.zeros(n, dtype="i4,f8"),
        lambda n: np.ma.array(np.arange(n), mask=[True] + [False] * (n - 1)),
        lambda n: np.rec.array([(1, 2.0)] * n, dtype=[("x", int), ("y", float)]),
        lambda n: np.zeros(n, dtype=np.dtype("f8", metadata={"unit": "m"})),
    ],
)
def test_other_arrays_go_by_pickle(make: Any, size: int) -> None:
    array = make(size)
    back = round_trip(array)
    assert type(back) is type(array)
    assert back.dtype == array.dtype and back.dtype.metadata == array.dtype.metadata
    assert back.tolist() == array.tolist()


def test_a_registered_reducer_of_arrays_wins() -> None:
    copyreg.pickle(np.ndarray, lambda a: (list, (a.tolist(),)))
    try:
        assert round_trip(np.arange(3)) == [0, 1, 2]
    finally:
        del copyreg.dispatch_table[np.ndarray]


def test_large_arrays_show_their_block_and_free_it() -> None:
    def in_use() -> int:
        gc.collect()
        core.purge()  # what is merely kept at hand does not count
        return int(core.arena_statistics()["in_use"])

    round_trip(np.arange(100_000.0))
    before = in_use()
    array = round_trip(np.arange(100_000.0))
    assert type(array.base).__name__ == "Block"
    assert array.ctypes.data % 64 == 0
    view = array.reshape(100, 1000)[3]
    del array
    assert in_use() > before
    assert view[5] == 3005.0
    del view
    assert in_use() == before


def test_small_arrays_do_not_keep_their_message() -> None:
    assert round_trip(np.arange(10.0)).base is None


def test_a_message_that_was_copied_out_can_be_decoded_again() -> None:
    message = core.codec_encode([np.arange(100_000.0), b"x" * 100_000])
    first = message.decode(True)[0]
    first[:] = 0
    assert message.decode(True)[0][7] == 7.0
    assert message.decode()[0][7] == 7.0
    with pytest.raises(ValueError, match="shoal"):  # its block was taken
        message.decode()


def test_the_same_array_twice_is_one_array() -> None:
    array = np.arange(100_000.0)
    message = core.codec_encode([array, array, {"a": array}])
    assert message.attachments == 1
    one, two, three = message.decode()
    assert one is two and three["a"] is one


def test_a_child_of_a_fork_sees_its_own_copy() -> None:
    array = round_trip(np.zeros(100_000))
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            array[0] = 5.0
            os.write(writer, b"%d" % int(array[0]))
            del array
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reader, 10) == b"5"
    assert array[0] == 0.0
    os.close(reader)
    os.close(writer)


def address(array: Any) -> int:
    return int(array.__array_interface__["data"][0])


def can_move() -> bool:
    array = round_trip(np.zeros(100_000))
    before = address(array)
    results = [array]
    del array
    return address(core.codec_encode_result(results).decode()) == before


@pytest.mark.skipif(not can_move(), reason="this core copies results")
def test_a_returned_array_that_owns_its_block_moves() -> None:
    for shape in (lambda a: a, lambda a: [a], lambda a: {"x": (1, a.reshape(10, 10_000))}):
        results = [shape(round_trip(np.arange(100_000.0)))]
        message = core.codec_encode_result(results)
        assert "float64" in message.summarize()
        message.decode()


@pytest.mark.skipif(not can_move(), reason="this core copies results")
@pytest.mark.parametrize("how", ["kept", "view", "part", "weak"])
def test_a_returned_array_that_others_refer_to_is_copied(how: str) -> None:
    import weakref

    array = round_trip(np.arange(100_000.0))
    before = address(array)
    kept: Any = None
    if how == "kept":
        kept = array
    elif how == "view":
        kept = array[:5]
    elif how == "weak":
        kept = weakref.ref(array)
    results = [array[:50_000] if how == "part" else array]
    del array
    back = core.codec_encode_result(results).decode()
    assert address(back) != before
    back[:] = -1.0
    if how in ("kept", "view"):
        assert kept[1] == 1.0
