# SPDX-License-Identifier: Apache-2.0
"""Dict, List, Set, Namespace: what the builtin types do, between processes."""

from __future__ import annotations

import copy
import datetime
import decimal
import enum
import fractions
import math
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import shoal
import shoal.multiprocessing as smp
from shoal._runtime._native import core

FORK = smp.get_context("fork")
SPAWN = smp.get_context("spawn")


class Colour(enum.IntEnum):
    RED = 1


class Name(str, enum.Enum):
    ADA = "ada"


class Shape(enum.Enum):
    ROUND = "round"


Point = namedtuple("Point", "x y")


@dataclass(frozen=True)
class Place:
    row: int
    column: str


class Odd:
    """Equal to every other, all with one hash."""

    def __hash__(self) -> int:
        return 7

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Odd)


KEYS: list[Any] = [
    None, True, 0, -1, 2**31, 2**63 - 1, -(2**63), 2**64, 10**40, -(10**40), 0.5, -0.0, 1e300,
    math.inf, -math.inf, "", "a", "ä", "\u4e2d", "\U0001f41f", "\ud800",
    "x" * 10_000, b"", b"a", b"\x00" * 300,
    (), (1,), (1, ("a", None)), Point(1, 2), Colour.RED, Name.ADA, Shape.ROUND,
    decimal.Decimal("0.1"), fractions.Fraction(1, 3), 1 + 2j, datetime.date(2020, 2, 29),
    datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc), frozenset({"a", "b"}),
    Place(1, "z"), (Place(1, "z"), 2), range(3), Odd(), int, len,
]  # fmt: skip


def in_process(context: Any, function: Callable[..., Any], *args: Any) -> None:
    process = context.Process(target=function, args=args)
    process.start()
    process.join()
    assert process.exitcode == 0


@pytest.fixture
def nothing_left() -> Iterator[None]:
    core.reap()
    before = core.arena_statistics()["blocks_shared"]
    yield
    core.reap()
    assert core.arena_statistics()["blocks_shared"] == before


# ---- Keys


def put_keys(table: Any) -> None:
    for number, key in enumerate(KEYS):
        table[key] = number


def check_keys(table: Any, expected: dict[Any, Any]) -> None:
    for key, value in expected.items():
        assert table[key] == value, key
        assert key in table
    assert len(table) == len(expected)
    assert table.copy() == expected
    assert list(table) == list(expected)
    assert [type(key) for key in table] == [type(key) for key in expected]


@pytest.mark.parametrize("maker", ["here", "fork", "spawn"])
@pytest.mark.parametrize("finder", ["here", "fork", "spawn"])
def test_every_key_is_found_by_every_process(maker: str, finder: str) -> None:
    contexts = {"fork": FORK, "spawn": SPAWN}
    table: Any = shoal.Dict()
    expected: dict[Any, Any] = {}
    put_keys(expected)
    if maker == "here":
        put_keys(table)
    else:
        in_process(contexts[maker], put_keys, table)
    if finder == "here":
        check_keys(table, expected)
    else:
        in_process(contexts[finder], check_keys, table, expected)
    for key in reversed(KEYS):
        table.pop(key, None)
    assert len(table) == 0 and list(table) == []


def test_equal_keys_are_one_and_the_first_stays() -> None:
    for first, *others in [
        [True, 1, 1.0, Colour.RED, decimal.Decimal(1), fractions.Fraction(1), 1 + 0j],
        [1.0, True, 1],
        [decimal.Decimal(2), 2, 2.0],
        [0, -0.0, False],
        [Point(1, 2), (1, 2), (1.0, True + 1)],
        [Name.ADA, "ada"],
        ["ada", Name.ADA],
        [2**70, float(2**70)],
        [(1, ("a", 2.0)), (decimal.Decimal(1), ("a", fractions.Fraction(2)))],
        [frozenset({1, "a"}), frozenset({1.0, "a"}), frozenset({decimal.Decimal(1), "a"})],
        [datetime.datetime(2020, 1, 1), datetime.datetime(2020, 1, 1, fold=1)],
    ]:
        table, model = shoal.Dict({first: 0}), {first: 0}
        for number, other in enumerate(others):
            assert table[other] == model[other] == number, (first, other)
            table[other] = model[other] = number + 1
        assert list(table) == list(model) == [first]
        assert type(next(iter(table))) is type(first)
        del table[others[-1]]
        assert not table


def find_all(table: Any, count: int) -> None:
    started = time.process_time()
    for number in range(count):
        for key in portable(number):
            assert table[key] == number
    elapsed = time.process_time() - started
    started = time.process_time()
    for number in range(10):
        for key in portable(number):
            assert table[key] == number
    assert elapsed < count * max(time.process_time() - started, 0.001), "one by one"


def portable(number: int) -> list[Any]:
    return [
        datetime.date(2000, 1, 1) + datetime.timedelta(number),
        datetime.datetime(2000, 1, 1) + datetime.timedelta(number),
        datetime.timedelta(number),
        decimal.Decimal(number) / 7 - 1000,
        fractions.Fraction(number, 2000) + 5,
        uuid.UUID(int=number),
        frozenset({str(number), Shape.ROUND}),
        (Shape.ROUND, datetime.date(2000, 1, 1), number),
        complex(number, 1),
    ]


def test_common_keys_have_the_same_hash_in_every_process() -> None:
    """Else each would be looked for among all of them: 1,000 times as long here."""
    table: Any = shoal.Dict()
    for number in range(1_000):
        for key in portable(number):
            table[key] = number
    assert len(table) == 9_000
    in_process(SPAWN, find_all, table, 1_000)


def test_numpy_keys() -> None:
    numpy = pytest.importorskip("numpy")
    table = shoal.Dict({1: "int", 0.5: "float", "text": "str"})
    assert table[numpy.int64(1)] == "int" and table[numpy.float32(0.5)] == "float"
    assert table[numpy.str_("text")] == "str"
    table[numpy.int8(3)] = 4
    assert table[3] == 4


def test_nan_is_never_found_again() -> None:
    table = shoal.Dict({math.nan: 1})
    assert math.nan not in table and len(table) == 1
    table[math.nan] = 2
    assert len(table) == 2


def test_what_cannot_be_a_key_is_refused_and_changes_nothing() -> None:
    table = shoal.Dict(a=1)
    for bad in ([], {}, set(), bytearray(b"x"), ([],)):
        for use in (table.__getitem__, table.get, table.pop, table.__contains__, table.setdefault):
            with pytest.raises(TypeError, match="unhashable"):
                use(bad)
        with pytest.raises(TypeError, match="unhashable"):
            table[bad] = 1
    with pytest.raises(KeyError, match=r"^\('a', 1\)$"):
        table["a", 1]
    assert table == {"a": 1}


class Meddler:
    """A key whose comparison uses the very container."""

    table: Any = None

    def __init__(self, name: str) -> None:
        self.name = name

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        if Meddler.table is not None:
            table, Meddler.table = Meddler.table, None
            table["meddled"] = len(table)
            table.pop("a", None)
            Meddler.table = table
        return isinstance(other, Meddler) and other.name == self.name


def test_a_comparison_may_use_the_container() -> None:
    table: Any = shoal.Dict(a=1)
    table[Meddler("x")] = "x"
    table[Meddler("y")] = "y"
    Meddler.table = table
    try:
        assert table[Meddler("y")] == "y" and table[Meddler("x")] == "x"
        assert table.get(Meddler("z")) is None
        table[Meddler("z")] = "z"
    finally:
        Meddler.table = None
    assert "a" not in table and len(table) == 4


class Refuses:
    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        raise ArithmeticError("cannot compare")


def test_a_comparison_that_raises_does_so_for_the_caller() -> None:
    table: Any = shoal.Dict({Refuses(): 1})
    with pytest.raises(ArithmeticError):
        table[Refuses()]
    with pytest.raises(ArithmeticError):
        table[Refuses()] = 2
    table["other"] = 3
    assert len(table) == 2 and table["other"] == 3


# ---- Dict


def test_the_methods_of_a_dict() -> None:
    table: Any = shoal.Dict([("a", 1)], b=2)
    assert table == {"a": 1, "b": 2} and table == {"a": 1, "b": 2} and table != {"a": 1}
    assert table == shoal.Dict(a=1, b=2) and table != 3
    assert table.pop("a") == 1 and table.pop("a", 9) == 9
    with pytest.raises(KeyError):
        table.pop("a")
    with pytest.raises(KeyError):
        del table["a"]
    assert table.setdefault("b", 0) == 2 and table.setdefault("c", 3) == 3 == table["c"]
    assert table.setdefault("d") is None and table.get("nowhere") is None
    table.update({"e": 5}, f=6)
    table |= {"g": 7}
    table.update([("h", 8)])
    assert list(table.keys()) == list("bcdefgh")
    assert list(table.values())[-1] == 8 and ("h", 8) in table.items() and "b" in set(table.keys())
    assert list(reversed(table)) == list("hgfedcb") and 8 in table.values()
    assert table.keys() & {"b", "z"} == {"b"}
    assert table.popitem() == ("h", 8) and table.popitem(last=False) == ("b", 2)
    assert table | {"c": 0} == {**table.copy(), "c": 0}
    assert {"c": 0, "x": 1} | table == {"c": 3, "x": 1, **table.copy()}
    assert shoal.Dict.fromkeys("ab", 1) == {"a": 1, "b": 1}
    assert type(table.copy()) is dict
    table.clear()
    assert not table and len(table) == 0
    with pytest.raises(KeyError):
        table.popitem()
    with pytest.raises(TypeError):
        shoal.Dict(1)
    with pytest.raises(TypeError):
        hash(table)
    assert repr(shoal.Dict(a=[1])) == "shoal.Dict({'a': [1]})"


def test_iteration_goes_over_one_moment() -> None:
    table: Any = shoal.Dict.fromkeys(range(5))
    for key in table:
        del table[key]
        table[key + 100] = key
    assert list(table) == [100, 101, 102, 103, 104]


class Forks:
    """Forks as it is pickled; the child goes back through all callers."""

    def __reduce__(self) -> tuple[Any, ...]:
        child = os.fork()
        if child == 0:
            raise SystemExit(0)
        assert os.waitpid(child, 0)[1] == 0
        return int, (1,)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # 3.12+: fork with threads
def test_a_fork_in_the_midst_of_a_change_leaves_it_to_the_parent(nothing_left: None) -> None:
    inner, values = shoal.List([1]), shoal.List[Any]()
    large = bytes(50_000)
    pid = os.getpid()
    try:
        values.extend([[inner], large, Forks(), [inner]])
    except SystemExit:
        os._exit(0 if os.getpid() != pid else 1)
    assert values[:] == [[[1]], large, 1, [[1]]]
    values.clear()
    assert inner == [1]


def test_values_are_copies() -> None:
    table: Any = shoal.Dict(a=[1])
    table["a"].append(2)
    assert table["a"] == [1]
    value = [1, 2, 3]
    table["b"] = value
    value.append(4)
    assert table["b"] == [1, 2, 3]


def test_values_of_all_kinds() -> None:
    table: Any = shoal.Dict()
    table["lambda"] = lambda x: x + 1
    table["class"] = Place(1, "a")
    table["bytes"] = bytes(5_000_000)
    table["text"] = "ä" * 1_000_000
    assert table["lambda"](1) == 2 and table["class"] == Place(1, "a")
    assert table["bytes"] == bytes(5_000_000) and table["text"] == "ä" * 1_000_000
    with pytest.raises(TypeError):
        table["lock"] = threading.Lock()
    assert "lock" not in table
    table["class"] = 1
    with pytest.raises(TypeError):
        table["class"] = threading.Lock()
    assert table["class"] == 1


def test_large_arrays(nothing_left: None) -> None:
    numpy = pytest.importorskip("numpy")
    table: Any = shoal.Dict()
    array = numpy.arange(3_000_000, dtype=float).reshape(1000, 3000)
    table["a"] = array
    found = table["a"]
    assert (found == array).all() and found.flags.writeable and found.shape == (1000, 3000)
    found[:] = 0
    assert (table["a"] == array).all()
    del table
    del found


@pytest.mark.parametrize("word", [b"cont", b"chan", b"cond", b"muxt", b"sholitem", b"shhtable"])
def test_data_that_looks_like_shoals_own_is_data(word: bytes, nothing_left: None) -> None:
    table: Any = shoal.Dict()
    for shift in range(8):
        data = b"x" * shift + word * 30_000
        table[shift] = data  # apart from its item
        assert table[shift] == data
        array = smp.RawArray("c", word * 200)
        assert array.raw.startswith(word)
        del array
    table.clear()
    del table


# ---- List


def test_the_methods_of_a_list() -> None:
    values: Any = shoal.List(range(5))
    model = list(range(5))
    assert values == model and values == shoal.List(model) and values != [1] and values != 1
    for index in range(-5, 5):
        assert values[index] == model[index]
    for bad in (5, -6):
        with pytest.raises(IndexError):
            values[bad]
        with pytest.raises(IndexError):
            values[bad] = 1
        with pytest.raises(IndexError):
            del values[bad]
        with pytest.raises(IndexError):
            values.pop(bad)
    with pytest.raises(TypeError):
        values["a"]
    with pytest.raises(TypeError):
        values["a"] = 1
    for slice_ in (slice(1, 3), slice(None, None, -1), slice(-2, 99), slice(4, 1), slice(0, 5, 2)):
        assert values[slice_] == model[slice_]
    with pytest.raises(ValueError, match="slice step cannot be zero"):
        values[::0]

    def both(change: Callable[[Any], Any]) -> None:
        assert change(values) == change(model)
        assert values[:] == model and len(values) == len(model)

    def assign(slice_: slice, new: Any) -> Callable[[Any], Any]:
        return lambda x: x.__setitem__(slice_, new)

    both(assign(slice(1, 3), "abc"))
    both(assign(slice(0, 0), [9, 9]))
    both(assign(slice(5, 2), [7]))
    both(
        assign(slice(None, None, 2), [0] * 5 if len(model) == 9 else [0] * ((len(model) + 1) // 2))
    )
    with pytest.raises(ValueError, match="attempt to assign sequence of size 1 to extended slice"):
        values[::2] = [1]
    with pytest.raises(TypeError):
        values[1:2] = 5
    both(lambda x: x.__delitem__(slice(None, None, 3)))
    both(lambda x: x.__delitem__(slice(1, 2)))
    both(lambda x: x.__delitem__(-1))
    both(lambda x: x.extend([3, 1, 2, 1]))
    both(lambda x: x.insert(1, "i"))
    both(lambda x: x.insert(-1, "j"))
    both(lambda x: x.insert(99, "k"))
    both(lambda x: x.pop())
    both(lambda x: x.pop(0))
    both(lambda x: x.pop(2))
    both(lambda x: x.reverse())
    both(lambda x: x.remove(1))
    both(lambda x: x.count(1))
    both(lambda x: x.index(1))
    both(lambda x: x.sort(key=str))
    both(lambda x: x.sort(key=str, reverse=True))
    both(lambda x: list(reversed(x)))
    both(lambda x: [*x, 2 in x, "nowhere" in x])
    both(lambda x: x + [1])
    both(lambda x: [1] + x)
    both(lambda x: x * 2)
    both(lambda x: 2 * x)
    values += (1, 2)
    model += (1, 2)
    values *= 3
    model *= 3
    both(len)
    values *= 0
    assert values[:] == []
    for empty in (values.pop, lambda: values.remove(1), lambda: values.index(1)):
        with pytest.raises((IndexError, ValueError)):
            empty()
    values.append(values)
    assert values[0][0][0].handle == values.handle
    assert repr(shoal.List([1, "a"])) == "shoal.List([1, 'a'])"
    values.clear()


def test_sorting_is_stable_and_errors_change_nothing() -> None:
    values = shoal.List([(1, "b"), (0, "x"), (1, "a"), (0, "y")])
    values.sort(key=lambda pair: pair[0])
    assert values[:] == [(0, "x"), (0, "y"), (1, "b"), (1, "a")]
    values.sort(key=lambda pair: pair[0], reverse=True)
    assert values[:] == [(1, "b"), (1, "a"), (0, "x"), (0, "y")]
    mixed: Any = shoal.List([1, "a"])
    with pytest.raises(TypeError):
        mixed.sort()
    assert mixed[:] == [1, "a"]


def test_a_list_is_iterated_live_as_lists_are() -> None:
    values = shoal.List([1, 2])
    iterator = iter(values)
    assert next(iterator) == 1
    values[1] = 20
    values.append(3)
    assert list(iterator) == [20, 3]


# ---- Set and Namespace


def test_the_methods_of_a_set() -> None:
    values: Any = shoal.Set("abc")
    assert values == {"a", "b", "c"} and {"a", "b", "c"} == values and values != {"a"}
    values.add("d")
    values.add("d")
    values.discard("nowhere")
    values.remove("d")
    with pytest.raises(KeyError):
        values.remove("d")
    assert values | {"z"} == {"a", "b", "c", "z"} and values & {"a", "z"} == {"a"}
    assert values - {"a"} == {"b", "c"} and values ^ {"a", "z"} == {"b", "c", "z"}
    assert {"a", "z"} - values == {"z"} and {"z"} | values == {"a", "b", "c", "z"}
    assert values < {"a", "b", "c", "d"} and values >= {"a"} and not values.isdisjoint("a")
    assert values.issubset("abcd") and values.issuperset("ab")
    assert values.union("z") == {"a", "b", "c", "z"} and values.intersection("az") == {"a"}
    assert values.difference("a") == {"b", "c"} and values.symmetric_difference("az") == set("bcz")
    values |= {"x"}
    values &= {"a", "x"}
    assert values == {"a", "x"}
    values -= {"x"}
    values ^= {"a", "q"}
    assert values == {"q"}
    values.update("rs", ["t"])
    values.intersection_update("qrs", "rst")
    values.difference_update("r")
    values.symmetric_difference_update("su")
    assert values == {"u"} and values.copy() == {"u"} and list(values) == ["u"]
    assert values.pop() == "u" and not values
    with pytest.raises(KeyError):
        values.pop()
    with pytest.raises(TypeError):
        values.add([])
    values.add(1.0)
    assert True in values and repr(values) == "shoal.Set({1.0})"
    values.clear()
    assert repr(values) == "shoal.Set()"


def test_a_namespace() -> None:
    space: Any = shoal.Namespace(a=1, handle=2, get=3)
    space.b = [4]
    assert (space.a, space.handle, space.get, space.b) == (1, 2, 3, [4])
    space._mine = "only here"
    other = pickle.loads(pickle.dumps(space))
    assert other.b == [4] and not hasattr(other, "_mine") and other == space
    del other.a
    assert not hasattr(space, "a") and "b" in dir(space)
    with pytest.raises(AttributeError, match="'Namespace' object has no attribute 'a'"):
        space.a
    with pytest.raises(AttributeError):
        del space.a
    assert repr(space) == "shoal.Namespace(handle=2, get=3, b=[4])"


# ---- Nesting


def store_in_child(outer: Any) -> None:
    outer["inner"] = shoal.List([1, 2])
    outer["queue"] = shoal.Queue()
    outer["queue"].put("kept")
    outer["lock"] = shoal.Lock()
    outer["total"] = shoal.Atomic(5)


@pytest.mark.parametrize("context", [FORK, SPAWN])
def test_what_a_dead_process_has_stored_stays(context: Any, nothing_left: None) -> None:
    outer: Any = shoal.Dict()
    in_process(context, store_in_child, outer)
    core.reap()
    outer["inner"].append(3)
    assert outer["inner"][:] == [1, 2, 3]
    assert outer["queue"].get() == "kept"
    with outer["lock"]:
        assert outer["total"].add(1) == 5
    del outer


def test_nested_containers_keep_identity_and_end_with_the_last_holder(nothing_left: None) -> None:
    before = core.arena_statistics()["blocks_shared"]
    inner = shoal.Dict(x=1)
    first, second = shoal.List([inner]), shoal.Dict(a=inner, b=[inner, {"c": inner}])
    assert core.arena_statistics()["blocks_shared"] == before + 3
    del inner
    first[0]["x"] = 2
    assert second["a"]["x"] == second["b"][1]["c"]["x"] == 2
    del first[0]
    second["b"] = None
    assert second["a"]["x"] == 2
    kept = second["a"]
    del first, second
    assert kept["x"] == 2 and core.arena_statistics()["blocks_shared"] == before + 1
    del kept


def test_share_and_plain() -> None:
    value = {"a": [1, {"b": {2, 3}}], "t": (1, [2])}
    shared = shoal.share(value)
    assert isinstance(shared["a"][1]["b"], shoal.Set) and shared["t"] == (1, [2])
    shared["a"][1]["b"].add(4)
    assert shoal.plain(shared) == {"a": [1, {"b": {2, 3, 4}}], "t": (1, [2])}
    assert shoal.plain(5) == 5 == shoal.share(5)
    assert repr(shoal.plain([{"a": shoal.List([1])}])) == "[{'a': [1]}]"
    value["a"].append(value)
    with pytest.raises(RecursionError):
        shoal.share(value)


def test_copies_of_the_object_are_the_same_container() -> None:
    for made in (shoal.Dict(a=1), shoal.List([1]), shoal.Set("a"), shoal.Namespace(a=1)):
        for other in (copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
            assert other == made and other._handle == made._handle


# ---- Processes


def square_into(table: Any, values: Any, number: int) -> int:
    table[number] = number * number
    values.append(number)
    return len(table)


@pytest.mark.parametrize("start", ["zygote", "fork", "spawn"])
def test_in_tasks_and_results(start: str) -> None:
    table, values = shoal.Dict[int, int](), shoal.List[int]()
    with shoal.Pool(2, start=start) as pool:  # type: ignore[arg-type]
        pool.starmap(square_into, [(table, values, n) for n in range(50)], chunksize=7)
        made = pool.apply(shoal.Dict, ({"made": "there"},))
    assert table == {n: n * n for n in range(50)} and sorted(values) == list(range(50))
    assert made == {"made": "there"}


def count(table: Any, values: Any, turns: int) -> None:
    for number in range(turns):
        while table.pop("token", None) is None:
            time.sleep(0)
        values.append(values[-1] + 1)  # nobody else: it has the token
        table["token"] = number + 1


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_pop_gives_one_of_several_processes_the_value(method: str) -> None:
    context = smp.get_context(method)
    table, values = shoal.Dict[str, Any](token=1), shoal.List([0])
    processes = [context.Process(target=count, args=(table, values, 100)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert values[:] == list(range(301))


def test_threads_of_one_process() -> None:
    table, values = shoal.Dict[int, int](), shoal.List[int]()

    def work(first: int) -> None:
        for number in range(first, first + 2_000):
            table[number] = number
            values.append(number)
            assert table[number] == number

    threads = [threading.Thread(target=work, args=(n * 2_000,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(table) == len(values) == 8_000 and sorted(values) == list(range(8_000))


def test_a_stopped_holder_delays_and_ctrl_c_ends_the_wait(interpreter: Any) -> None:
    result = interpreter(
        """
        import os, signal, threading, time
        import shoal, shoal.multiprocessing as mp
        from shoal._runtime._native import core

        table = shoal.Dict(a=1)
        big = shoal.List(range(300_000))

        def work():
            while True:
                big.reverse()  # mostly within the lock

        process = mp.get_context("fork").Process(target=work)
        process.start()
        time.sleep(0.2)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:  # stop it at an instant when it has the lock
            os.kill(process.pid, signal.SIGSTOP)
            time.sleep(0.01)
            timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
            timer.start()
            try:
                big.append(1)
            except KeyboardInterrupt:
                print("interrupted")
                break
            finally:
                timer.cancel()
                timer.join()
            os.kill(process.pid, signal.SIGCONT)
            time.sleep(0.003)
        process.kill()
        process.join()
        big.append(2)
        print(big[-1], len(big) > 300_000)
        """
    )
    assert result.check() == "interrupted\n2 True\n"


def test_a_process_of_another_session_is_told(interpreter: Any) -> None:
    blob = pickle.dumps(shoal.Dict(a=1))
    result = interpreter(f"import pickle, shoal\npickle.loads({blob!r})")
    assert result.returncode == 1 and "belongs to no session" in result.err


def test_memory_that_is_used_up_loses_nothing(interpreter: Any) -> None:
    result = interpreter(
        """
        import shoal

        table, values = shoal.Dict(), shoal.List([1, 2, 3])
        count = 0
        try:
            while True:
                table[count] = bytes(1_000_000)
                count += 1
        except MemoryError as error:
            assert "limit" in str(error), error
        assert len(table) == count > 10
        assert all(len(value) == 1_000_000 for value in table.values())
        try:
            values.extend([bytes(30_000)] * 10_000)
        except MemoryError:
            pass
        assert values[:3] == [1, 2, 3]
        table.clear()
        table["again"] = bytes(1_000_000)
        print("fine")
        """,
        env={"SHOAL_MEMORY_LIMIT": "64M"},
    )
    assert result.check() == "fine\n"


def test_hash_seeds_differ_between_fresh_interpreters() -> None:
    """What makes the tests above with spawn mean something."""
    code = "from shoal._runtime._native import core; print(hash('a'))"
    runs = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(runs) == 2


def test_a_killed_writer_in_the_midst_of_many_updates() -> None:
    table = shoal.Dict[Any, Any]()

    def write() -> None:
        number = 0
        while True:
            table[number % 1_000] = [number] * (number % 50)
            table[f"k{number % 100}"] = "x" * (number % 100_000)
            number += 1

    for _ in range(20):
        process = FORK.Process(target=write)
        process.start()
        time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert len(table.copy()) == len(table)
        table.pop(0, None)
    table.clear()
