# SPDX-License-Identifier: Apache-2.0
"""The codec's Python half: every value comes back as pickle would bring it back, or goes to pickle.

Messages here never leave the process (`core.codec_encode`), so what is tested is the codec alone.
"""

from __future__ import annotations

import collections
import copyreg
import datetime
import decimal
import enum
import gc
import math
import pickle
import random
import sys
from collections.abc import Iterator
from multiprocessing.reduction import ForkingPickler
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shoal._pickling import _codec
from shoal._runtime._native import core

LARGE = 70_000  # bytes: more than the 64 KiB from which data is attached


class Pickler:
    """Stands for shoal's own pickler and counts what is asked of it."""

    def __init__(self) -> None:
        self.dumped: list[Any] = []
        self.loaded = 0

    def dumps(self, obj: Any) -> tuple[bytes, list[pickle.PickleBuffer]]:
        self.dumped.append(obj)
        buffers: list[pickle.PickleBuffer] = []
        return pickle.dumps(obj, 5, buffer_callback=buffers.append), buffers

    def loads(self, data: Any, buffers: Any) -> Any:
        self.loaded += 1
        return pickle.loads(data, buffers=buffers)


@pytest.fixture
def pickler() -> Iterator[Pickler]:
    counting = Pickler()
    core.codec_set_pickler(counting.dumps, counting.loads)
    yield counting
    _codec.connect_pickler()


@pytest.fixture
def no_pickler() -> Iterator[None]:
    """Pickles in damaged messages must not be loaded: they could do anything."""

    def refuse(*_: Any) -> Any:
        raise ValueError("not in this test")

    core.codec_set_pickler(refuse, refuse)
    yield
    _codec.connect_pickler()


def round_trip(value: Any, copy: bool = False) -> Any:
    return core.codec_encode(value).decode(copy)


def same(left: Any, right: Any) -> bool:
    """Equal in type and value all the way down; NaN is the same as NaN."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return left == right or (math.isnan(left) and math.isnan(right))
    if isinstance(left, complex):
        return same(left.real, right.real) and same(left.imag, right.imag)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return same(list(left.items()), list(right.items()))
    return bool(left == right)


def identities(value: Any, seen: dict[int, int], out: list[int]) -> list[int]:
    """For each list, dict, tuple, str... on a walk: the number of its first occurrence."""
    if isinstance(value, (list, tuple, dict, bytearray)) or (
        isinstance(value, (str, bytes)) and len(value) > 1
    ):
        out.append(seen.setdefault(id(value), len(seen)))
        if out[-1] != len(seen) - 1:
            return out
    if isinstance(value, (list, tuple)):
        for item in value:
            identities(item, seen, out)
    elif isinstance(value, dict):
        for pair in value.items():
            identities(pair[0], seen, out)
            identities(pair[1], seen, out)
    return out


atoms = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(2**200), max_value=2**200)
    | st.floats()
    | st.complex_numbers()
    | st.text(st.characters())  # surrogates too
    | st.binary()
    | st.dates()
    | st.times()
    | st.datetimes()
    | st.datetimes(timezones=st.just(datetime.timezone.utc))
    | st.timedeltas()
    | st.builds(range, st.integers(), st.integers(), st.integers(min_value=1))
)
keys = st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.dates()
values = st.recursive(
    atoms | st.binary().map(bytearray) | st.frozensets(keys) | st.sets(keys),
    lambda inner: (
        st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(keys, inner, max_size=8)
    ),
    max_leaves=30,
)


@given(values)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_plain_values_come_back_the_same_without_pickle(pickler: Pickler, value: Any) -> None:
    message = core.codec_encode(value)
    assert same(message.decode(True), value)
    assert same(message.decode(), value)
    assert not pickler.dumped


@given(values, st.randoms(use_true_random=False))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_sharing_inside_a_value_is_kept_as_pickle_keeps_it(
    pickler: Pickler, value: Any, chance: random.Random
) -> None:
    parts = [value, [value], "some text", b"some bytes", (value, 1), bytearray(b"xy")]
    shared = [chance.choice(parts) for _ in range(8)]
    shared.append({"k": shared[0], "l": chance.choice(parts)})
    expected = identities(pickle.loads(pickle.dumps(shared, 5)), {}, [])
    assert identities(round_trip(shared), {}, []) == expected
    assert not pickler.dumped


@pytest.mark.parametrize("size", [0, 1, 2, 253, 254, 255, 65_535, 65_536, 300_000])
@pytest.mark.parametrize(
    "make",
    [bytes, bytearray]
    + [lambda n, c=c: c * n for c in ("x", "é", "€", "😀")]
    + [lambda n: [None] * n],
)
def test_sizes_around_every_limit(make: Any, size: int) -> None:
    value = make(size)
    message = core.codec_encode(value)
    assert same(message.decode(True), value)
    assert same(message.decode(), value)


def test_ints_of_every_width() -> None:
    for bits in [0, 7, 8, 15, 16, 31, 32, 60, 61, 62, 63, 64, 65, 127, 128, 5000]:
        for number in (2**bits, 2**bits - 1, -(2**bits), -(2**bits) - 1, -(2**bits) + 1):
            assert same(round_trip(number), number)


class Colour(enum.Enum):
    RED = 1


class MyList(list):  # type: ignore[type-arg]
    pass


class Hooked:
    calls: list[str] = []

    def __getstate__(self) -> dict[str, int]:
        Hooked.calls.append("getstate")
        return {"x": 1}

    def __setstate__(self, state: dict[str, int]) -> None:
        Hooked.calls.append("setstate")


@pytest.mark.parametrize(
    "value",
    [
        Colour.RED,
        MyList([1, 2]),
        collections.OrderedDict(a=1),
        decimal.Decimal("1.5"),
        len,
        {1: {2: [Colour.RED]}},
        datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
        True.__class__,
        slice(1, 2),
    ],
    ids=repr,
)
def test_what_is_not_exactly_a_plain_type_is_pickled_once_as_a_whole(
    pickler: Pickler, value: Any
) -> None:
    outer = [1, "two", value]
    assert same(round_trip(outer), outer)
    assert len(pickler.dumped) == 1
    assert pickler.dumped[0] is outer
    assert pickler.loaded == 1


class Member(enum.Enum):
    ONE = 1
    TWO = 2


@pytest.mark.parametrize("others", [0, 1, 2, 7])
def test_a_set_with_one_member_that_is_not_plain(others: int) -> None:
    """Wherever in the set's order that one is, the last place among them."""
    for number in range(40):
        for kind in (set, frozenset):
            value = kind([*(f"{number}-{i}" for i in range(others)), Member.ONE])
            for whole in (value, [value], {"a": value}, (1, value)):
                assert round_trip(whole) == whole


def test_hooks_run_exactly_as_often_as_pickle_runs_them(pickler: Pickler) -> None:
    Hooked.calls.clear()
    round_trip([Hooked(), b"x" * LARGE])
    assert Hooked.calls == ["getstate", "setstate"]


def test_cycles_and_deep_nesting_are_left_to_pickle(pickler: Pickler) -> None:
    cycle: list[Any] = [1]
    cycle.append({"again": cycle})
    back = round_trip(cycle)
    assert back[1]["again"] is back
    deep: list[Any] = []
    for _ in range(150):
        deep = [deep]
    assert round_trip(deep) == deep
    assert len(pickler.dumped) == 2


def test_registered_reducers_win(pickler: Pickler) -> None:
    day = datetime.date(2020, 1, 2)
    copyreg.pickle(datetime.date, lambda d: (str, (d.isoformat(),)))
    try:
        assert round_trip([day]) == ["2020-01-02"]
    finally:
        del copyreg.dispatch_table[datetime.date]
    ForkingPickler.register(range, lambda r: (list, (list(r),)))
    try:
        assert core.codec_encode(range(3)).summarize() == "range(...)"
    finally:
        del ForkingPickler._extra_reducers[range]  # type: ignore[attr-defined]
    assert len(pickler.dumped) == 2
    assert round_trip(day) is not day and len(pickler.dumped) == 2


def test_failure_of_the_pickler_is_the_failure_of_encode() -> None:
    with pytest.raises((TypeError, pickle.PicklingError, AttributeError)):
        core.codec_encode([b"x" * LARGE, sys._getframe()])
    assert round_trip(1) == 1


def test_out_of_band_buffers_travel_in_blocks(pickler: Pickler) -> None:
    class_name = pickle.PickleBuffer(bytearray(b"z" * LARGE))
    message = core.codec_encode([class_name, Colour.RED])
    assert message.attachments == 1
    buffer, colour = message.decode()
    assert colour is Colour.RED
    memoryview(buffer)[0:1] = b"a"  # ours to write to
    assert bytes(buffer) == b"a" + b"z" * (LARGE - 1)


def test_a_pickle_may_come_in_pieces() -> None:
    whole = pickle.dumps([Colour.RED] * 3, 5)
    core.codec_set_pickler(
        lambda obj: ([whole[:5], whole[5:]], None), lambda data, _: pickle.loads(data)
    )
    try:
        assert round_trip(Colour.RED) == [Colour.RED] * 3
    finally:
        _codec.connect_pickler()


@pytest.mark.parametrize("bad", [None, (b"",), (1, []), (b"", 5), (b"", [1]), [b"", []]])
def test_a_bad_answer_of_the_pickler_is_an_error(bad: Any) -> None:
    core.codec_set_pickler(lambda obj: bad, lambda data, _: None)
    try:
        with pytest.raises(TypeError):
            core.codec_encode(Colour.RED)
    finally:
        _codec.connect_pickler()


def in_use() -> int:
    gc.collect()
    return int(core.arena_statistics()["in_use"])


def test_attachments_are_freed_with_their_message_and_after_a_failed_encode() -> None:
    core.codec_encode([b"x" * LARGE]).decode()
    before = in_use()
    core.codec_encode([b"x" * LARGE, bytearray(LARGE)]).decode()
    with pytest.raises((TypeError, pickle.PicklingError, AttributeError)):
        core.codec_encode([b"x" * LARGE, sys._getframe()])
    assert in_use() == before


DAMAGED: list[Any] = [
    (1, "two", 3.0, None, True, b"four", 2**70),
    {"key": [1, 2, {3}], "other": frozenset((1, 2)), "c": 1j},
    [["a", "a"]] * 3,
    [datetime.datetime(2020, 1, 2, 3, 4, 5, 6), datetime.timedelta(1), datetime.time(1)],
    "é€😀" * 5,
    [range(10), bytearray(b"abc"), "long" * 100],
    [b"x" * LARGE, "y" * LARGE, bytearray(LARGE)],
    [Colour.RED],
]


def samples() -> list[Any]:
    """Messages to damage: made with shoal's own pickler."""
    messages = [core.codec_encode(value) for value in DAMAGED]
    try:
        import numpy as np
    except ImportError:
        return messages
    arrays = [np.arange(5.0), np.zeros((3, 4), dtype=">i2"), np.float64(1.5), np.zeros(20_000),
              np.array(["2020-01-01"], dtype="M8[D]"), np.array(["ab"])]  # fmt: skip
    return [*messages, *(core.codec_encode(value) for value in arrays)]


def decode_anything(message: Any, damaged: bytes) -> None:
    try:
        message.decode_bytes(damaged)
    except (ValueError, TypeError, OverflowError, MemoryError):
        pass


def test_every_cut_off_message_is_a_value_error(no_pickler: None) -> None:
    _codec.connect_pickler()
    messages = samples()
    core.codec_set_pickler(lambda *_: None, lambda *_: None)
    for message in messages:
        whole = message.bytes
        for size in range(min(len(whole), 600)):
            with pytest.raises(ValueError, match="offset"):
                message.decode_bytes(whole[:size])


def test_damaged_messages_never_do_more_than_raise(no_pickler: None) -> None:
    _codec.connect_pickler()
    messages = samples()
    core.codec_set_pickler(lambda *_: None, lambda *_: None)
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    for _ in range(20_000):
        message = chance.choice(messages)
        damaged = bytearray(message.bytes)
        for _ in range(chance.choice((1, 1, 2, 4, 16))):
            at = chance.randrange(len(damaged))
            how = chance.randrange(4)
            if how == 0:
                damaged[at] ^= 1 << chance.randrange(8)
            elif how == 1:
                damaged[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, chance.randrange(256)))
            elif how == 2:
                damaged[at:at] = chance.randbytes(chance.randrange(9))
            else:
                del damaged[at : at + chance.randrange(9)]
            damaged = damaged or bytearray(1)
        decode_anything(message, bytes(damaged))


@pytest.mark.parametrize(
    "value, text",
    [
        ((1, "it's", 2.0, None, b"x"), r"(1, 'it\'s', 2.0, None, b'x')"),
        ({"a": [1, {2}]}, "{'a': [1, {2}]}"),
        ((5,), "(5,)"),
        ([Colour.RED, (1, None, "it's")], r"[Colour(...), (1, None, 'it\'s')]"),
        ({"k": [Colour.RED] * 99}, "{'k': [Colour(...), ..."),
        (list(range(1000)), "[0, 1, 2, 3, 4..."),
    ],
)
def test_summaries_are_short_and_like_repr(value: Any, text: str) -> None:
    assert core.codec_encode(value).summarize(max(len(text), 17)) == text


words = st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=8) | atoms


@given(words)
def test_inline_words_keep_type_and_value(value: Any) -> None:
    word = core.codec_to_word(value)
    if word is not None:
        assert word & 7 != 0
        assert same(core.codec_from_word(word), value)


@pytest.mark.parametrize(
    "value",
    [None, True, False, 0, -1, 2**60 - 1, -(2**60), 1.5, "abcdefg", b"abcdefg", (), "", b""],
)
def test_small_values_have_inline_words(value: Any) -> None:
    assert core.codec_to_word(value) is not None


@given(st.integers(min_value=0, max_value=2**64 - 1))
def test_no_word_does_more_than_raise(word: int) -> None:
    try:
        core.codec_from_word(word)
    except ValueError:
        pass
