# SPDX-License-Identifier: Apache-2.0
"""Random programs over Dict, List, Set and Namespace, checked against the builtin types.

Each step is done by this process or by a second one, so that what one has done the other must find.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import shoal
import shoal.multiprocessing as smp
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

KEYS = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([True, False, 0.0, -0.0, 1.0, 2.5, 2**70, None, "", "a", "ä", b"a", (), (1,)]),
    st.tuples(st.integers(0, 2), st.sampled_from(["a", None])),
    st.frozensets(st.integers(0, 2), max_size=2),
    st.dates(),
)
VALUES = st.one_of(
    st.none(),
    st.integers(),
    st.text(max_size=20),
    st.binary(max_size=3_000),
    st.lists(st.integers(), max_size=5),
    st.integers(30_000, 40_000).map(bytes),  # around the size from which values lie apart
)
INDICES = st.integers(-12, 12)
BOUNDS = st.one_of(st.none(), INDICES)
SLICES = st.builds(slice, BOUNDS, BOUNDS, st.sampled_from([None, 1, 1, 1, 2, -1, -3]))

Step = Callable[..., Any]


def _serve(asked: Any, answers: Any) -> None:
    while (step := asked.get()) is not None:
        answers.put(_outcome(*step))


@pytest.fixture(scope="module", params=["fork", "spawn"])
def other_process(request: Any) -> Iterator[tuple[Any, Any]]:
    """The second process's two queues. A spawned one has another hash seed."""
    asked, answers = shoal.SimpleQueue[Any](), shoal.SimpleQueue[Any]()
    process = smp.get_context(request.param).Process(target=_serve, args=(asked, answers))
    process.start()
    yield asked, answers
    asked.put(None)
    process.join()


def _outcome(target: Any, name: str, arguments: tuple[Any, ...]) -> tuple[str, Any]:
    """What a call came to, for both worlds: a plain copy of the result, or the error's type."""
    try:
        result = _STEPS[name](target, *arguments)
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        return "raised", type(error).__name__
    return "gave", result


# Each step, on a shared container and on its model alike.
_STEPS: dict[str, Step] = {
    "get": lambda x, key: x.get(key, "nothing"),
    "item": lambda x, key: x[key],
    "set": lambda x, key, value: x.__setitem__(key, value),
    "del": lambda x, key: x.__delitem__(key),
    "pop": lambda x, *key: x.pop(*key),
    "setdefault": lambda x, key, value: x.setdefault(key, value),
    "popitem": lambda x: x.popitem(),
    "in": lambda x, key: key in x,
    "update": lambda x, pairs: x.update(pairs),
    "clear": lambda x: x.clear(),
    "append": lambda x, value: x.append(value),
    "extend": lambda x, values: x.extend(values),
    "insert": lambda x, index, value: x.insert(index, value),
    "reverse": lambda x: x.reverse(),
    "sort": lambda x: x.sort(key=repr),
    "remove": lambda x, value: x.remove(value),
    "times": lambda x, times: x.__imul__(times) is x,
    "add": lambda x, value: x.add(value),
    "discard": lambda x, value: x.discard(value),
    "or": lambda x, values: x.update(values),
    "and": lambda x, values: x.intersection_update(values),
    "minus": lambda x, values: x.difference_update(values),
    "xor": lambda x, values: x.symmetric_difference_update(values),
    "getattr": lambda x, name: getattr(x, name),
    "setattr": lambda x, name, value: setattr(x, name, value),
    "delattr": lambda x, name: delattr(x, name),
}


class Pair(RuleBasedStateMachine):
    """A shared container, its model, and a second process."""

    queues: tuple[Any, Any]

    def start(self, made: Any, model: Any) -> None:
        self.made, self.model = made, model

    def both(self, there: bool, name: str, *arguments: Any) -> None:
        expected = _outcome(self.model, name, arguments)
        if there:
            self.queues[0].put((self.made, name, arguments))
            found = self.queues[1].get()
        else:
            found = _outcome(self.made, name, arguments)
        assert found == expected, (name, arguments)
        assert repr(found) == repr(expected)  # types too: 1 is not True here


class DictMachine(Pair):
    @initialize(pairs=st.dictionaries(KEYS, VALUES, max_size=12))
    def make(self, pairs: dict[Any, Any]) -> None:
        self.start(shoal.Dict(pairs), dict(pairs))

    @rule(name=st.sampled_from(["get", "item", "del", "pop", "in"]), key=KEYS, there=st.booleans())
    def ask(self, name: str, key: Any, there: bool) -> None:
        self.both(there, name, key)

    @rule(
        name=st.sampled_from(["set", "set", "setdefault", "pop"]),
        key=KEYS,
        value=VALUES,
        there=st.booleans(),
    )
    def put(self, name: str, key: Any, value: Any, there: bool) -> None:
        self.both(there, name, key, value)

    @rule(pairs=st.dictionaries(KEYS, VALUES, max_size=20), there=st.booleans())
    def update(self, pairs: dict[Any, Any], there: bool) -> None:
        self.both(there, "update", pairs)

    @rule(there=st.booleans())
    def popitem(self, there: bool) -> None:
        self.both(there, "popitem")

    @rule(there=st.booleans())
    def clear(self, there: bool) -> None:
        self.both(there, "clear")

    @invariant()
    def agree(self) -> None:
        assert len(self.made) == len(self.model)
        assert repr(list(self.made.items())) == repr(list(self.model.items()))


class ListMachine(Pair):
    @initialize(values=st.lists(VALUES, max_size=10))
    def make(self, values: list[Any]) -> None:
        self.start(shoal.List(values), list(values))

    @rule(
        name=st.sampled_from(["item", "del", "pop"]),
        index=st.one_of(INDICES, SLICES),
        there=st.booleans(),
    )
    def ask(self, name: str, index: Any, there: bool) -> None:
        self.both(there, name, index)

    @rule(index=INDICES, value=VALUES, there=st.booleans())
    def put(self, index: int, value: Any, there: bool) -> None:
        self.both(there, "set", index, value)

    @rule(index=SLICES, values=st.lists(VALUES, max_size=8), there=st.booleans())
    def put_slice(self, index: slice, values: list[Any], there: bool) -> None:
        self.both(there, "set", index, values)

    @rule(value=VALUES, there=st.booleans())
    def append(self, value: Any, there: bool) -> None:
        self.both(there, "append", value)

    @rule(values=st.lists(VALUES, max_size=12), there=st.booleans())
    def extend(self, values: list[Any], there: bool) -> None:
        self.both(there, "extend", values)

    @rule(index=INDICES, value=VALUES, there=st.booleans())
    def insert(self, index: int, value: Any, there: bool) -> None:
        self.both(there, "insert", index, value)

    @rule(value=VALUES, there=st.booleans())
    def remove(self, value: Any, there: bool) -> None:
        self.both(there, "remove", value)

    @rule(name=st.sampled_from(["pop", "reverse", "sort", "clear"]), there=st.booleans())
    def change(self, name: str, there: bool) -> None:
        self.both(there, name)

    @rule(times=st.integers(-1, 2), there=st.booleans())
    def times(self, times: int, there: bool) -> None:
        if len(self.model) < 100:
            self.both(there, "times", times)

    @invariant()
    def agree(self) -> None:
        assert len(self.made) == len(self.model)
        assert repr(self.made[:]) == repr(self.model)


class SetMachine(Pair):
    @initialize(values=st.sets(KEYS, max_size=8))
    def make(self, values: set[Any]) -> None:
        self.start(shoal.Set(values), set(values))

    @rule(
        name=st.sampled_from(["add", "add", "discard", "remove", "in"]),
        value=KEYS,
        there=st.booleans(),
    )
    def one(self, name: str, value: Any, there: bool) -> None:
        self.both(there, name, value)

    @rule(
        name=st.sampled_from(["or", "and", "minus", "xor"]),
        values=st.sets(KEYS, max_size=5),
        there=st.booleans(),
    )
    def several(self, name: str, values: set[Any], there: bool) -> None:
        self.both(there, name, values)

    @rule()
    def pop(self) -> None:
        if self.model:
            self.model.remove(self.made.pop())

    @rule(there=st.booleans())
    def clear(self, there: bool) -> None:
        self.both(there, "clear")

    @invariant()
    def agree(self) -> None:
        assert len(self.made) == len(self.model)
        assert self.made == self.model == self.made.copy()


class NamespaceMachine(Pair):
    names = st.sampled_from(["a", "b", "handle", "values", "ä"])

    @initialize()
    def make(self) -> None:
        class Model:
            pass

        self.start(shoal.Namespace(), Model())

    @rule(name=st.sampled_from(["getattr", "delattr"]), attribute=names, there=st.booleans())
    def ask(self, name: str, attribute: str, there: bool) -> None:
        self.both(there, name, attribute)

    @rule(attribute=names, value=VALUES, there=st.booleans())
    def put(self, attribute: str, value: Any, there: bool) -> None:
        self.both(there, "setattr", attribute, value)

    @invariant()
    def agree(self) -> None:
        assert dict(self.made._snapshot(3)[1]) == vars(self.model)


@pytest.mark.parametrize("machine", [DictMachine, ListMachine, SetMachine, NamespaceMachine])
def test_it_does_what_the_builtin_type_does(
    machine: type[Pair], other_process: tuple[Any, Any]
) -> None:
    case: Any = type(machine.__name__, (machine,), {"queues": other_process}).TestCase
    case.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
    case("runTest").runTest()
