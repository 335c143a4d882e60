# SPDX-License-Identifier: Apache-2.0
"""Dictionaries, lists, sets and namespaces in shared memory: `shoal.Dict` and so on.

Thin classes over the C types of `shoal._core`, which implement the methods that are called often.
They may be made at any time, passed to any process of the session, and put into each other. The
last process or container that has one frees it. There is no server: each access is a lock, a lookup
and a copy, in the calling process.

A value is encoded when it is put in, and each lookup returns a new copy. So changing a copy does
not change the container: put the copy back, or put in a shared container (`share` makes nested
ones).
If a process is killed during a change, that change is lost and nothing else.
Design: docs/design/collections.md
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import (
    Callable,
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    MutableMapping,
    MutableSequence,
    MutableSet,
    ValuesView,
)
from typing import TYPE_CHECKING, Any, TypeVar

from shoal._pickling import _codec
from shoal._runtime import _children, _session
from shoal._runtime._native import core
from shoal._runtime._public import public

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Dict", "List", "Namespace", "Set", "plain", "share"]

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")


class _View:
    """Each iteration, forwards or backwards, is over a snapshot taken when it begins."""

    _what = core.COPY_KEYS
    _mapping: Any

    def _values(self) -> list[Any]:
        values: list[Any] = self._mapping._snapshot(self._what)[1]
        return values

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values())

    def __reversed__(self) -> Iterator[Any]:
        return iter(self._values()[::-1])


class _Keys(_View, KeysView[K]):
    pass


class _Values(_View, ValuesView[V]):
    _what = core.COPY_VALUES

    def __contains__(self, value: object) -> bool:
        return value in self._values()  # key by key, it would miss concurrent changes


class _Items(_View, ItemsView[K, V]):
    _what = core.COPY_ITEMS


def _of_one_moment(mapping: Any) -> Any:
    """A shared dict copied in one step: iterating over it key by key may miss some."""
    return mapping.copy() if isinstance(mapping, Dict) else mapping


def _recursive_repr(shown: str) -> Callable[[Callable[[Any], str]], Callable[[Any], str]]:
    """`reprlib.recursive_repr` for containers that are a new object at each lookup."""
    running: set[tuple[int, int]] = set()

    def decorate(function: Callable[[Any], str]) -> Callable[[Any], str]:
        @functools.wraps(function)
        def wrapper(self: Any) -> str:
            key = self._handle, threading.get_ident()
            if key in running:
                return shown
            running.add(key)
            try:
                return function(self)
            finally:
                running.discard(key)

        return wrapper

    return decorate


@public
class Dict(core.Map, MutableMapping[K, V]):
    """A dict that all processes of the session see and change.

    It has every method of a dict. A method that changes one key (`d[k] = v`, `pop`, `setdefault`,
    `popitem`), and `clear`, is one atomic step; `update` is one step per key. `d[k] += 1` is two
    steps: use `shoal.Atomic` or a lock. Iteration goes over the keys that existed when it began.

    Keys are found by value in all processes. A process whose hash seed differs from that of the
    dict's maker compares keys of the program's own classes one by one.

    >>> import shoal
    >>> with shoal.Pool(2) as pool:
    ...     squares = shoal.Dict()
    ...     _ = pool.starmap(squares.__setitem__, [(i, i * i) for i in range(5)])
    ...     sorted(squares.items())
    [(0, 0), (1, 1), (2, 4), (3, 9), (4, 16)]
    """

    def __new__(cls, /, *args: Any, **kwargs: Any) -> Self:
        return core.Map.__new__(cls)

    def __init__(self, /, *args: Any, **kwargs: Any) -> None:
        if args or kwargs:
            self.update(*args, **kwargs)

    def __iter__(self) -> Iterator[K]:
        return iter(self._snapshot(core.COPY_KEYS)[1])

    def __reversed__(self) -> Iterator[K]:
        return iter(self._snapshot(core.COPY_KEYS)[1][::-1])

    def keys(self) -> KeysView[K]:
        """A view; each iteration over it goes over the keys that existed when it began."""
        return _Keys(self)

    def values(self) -> ValuesView[V]:
        """A view; each iteration first copies all values, in one step."""
        return _Values(self)

    def items(self) -> ItemsView[K, V]:
        """A view; each iteration first copies all pairs, in one step."""
        return _Items(self)

    def popitem(self, last: bool = True) -> tuple[K, V]:
        """Remove and return the last inserted pair (or the first), in one step; KeyError when
        empty.
        """
        pair = self._take(last)
        if pair is None:
            raise KeyError("popitem(): dictionary is empty")
        return pair

    def update(self, other: Any = (), /, **values: Any) -> None:
        """As a dict's `update`, one step per key."""
        super().update(_of_one_moment(other), **values)

    def copy(self) -> dict[K, V]:
        """An ordinary dict with the contents at one moment."""
        return dict(self._snapshot(core.COPY_ITEMS)[1])

    @classmethod
    def fromkeys(cls, keys: Iterable[Any], value: Any = None) -> Self:
        """A new shared dict with a copy of the same value for each key."""
        made = cls()
        for key in keys:
            made[key] = value
        return made

    def __or__(self, other: Mapping[Any, Any]) -> dict[Any, Any]:
        if not isinstance(other, Mapping):
            return NotImplemented
        return self.copy() | dict(_of_one_moment(other))

    def __ror__(self, other: Mapping[Any, Any]) -> dict[Any, Any]:
        if not isinstance(other, Mapping):
            return NotImplemented
        return dict(_of_one_moment(other)) | self.copy()

    def __ior__(self, other: Any) -> Self:  # type: ignore[misc]
        self.update(other)
        return self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        return self.copy() == dict(_of_one_moment(other))

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return _session.reduce_shared(_map_at, self, type(self))

    @_recursive_repr("{...}")
    def __repr__(self) -> str:
        return f"shoal.{type(self).__name__}({self.copy()!r})"


def _map_at(handle: int, cls: Any) -> Any:
    return core.Map.__new__(cls, handle)


def _turns(values: Any) -> Iterator[None]:
    """Turns for an operation that starts again if another process changes the list meanwhile. After
    each second failed turn, the other processes are asked to wait for a while.
    """
    asked = False
    try:
        while True:
            started = time.monotonic()
            yield
            yield
            values._ask_for_quiet(0.01 + 2 * (time.monotonic() - started))
            asked = True
    finally:
        if asked:
            values._ask_for_quiet(0)


@public
class List(core.Sequence, MutableSequence[T]):
    """A list that all processes of the session see and change.

    It has every method of a list, and each is one atomic step, except `extend` and `+=`: if the
    process dies during these, the first part may remain. Appending and removing at either end is
    cheap. Any other operation that moves values makes a new table of 8 bytes per value.

    >>> import shoal
    >>> found = shoal.List([3, 1])
    >>> found.append(2)
    >>> found.sort(reverse=True)
    >>> found[:], found.pop(0), len(found)
    ([3, 2, 1], 3, 2)
    """

    def __new__(cls, /, *args: Any, **kwargs: Any) -> Self:
        return core.Sequence.__new__(cls)

    def __init__(self, values: Iterable[T] = (), /) -> None:
        if not isinstance(values, tuple) or values:
            self.extend(values)

    def copy(self) -> list[T]:
        """An ordinary list with the contents at one moment."""
        return self._snapshot()[1]

    def __contains__(self, value: object) -> bool:
        return value in self.copy()

    def __reversed__(self) -> Iterator[T]:
        return reversed(self.copy())

    def index(self, value: Any, start: int = 0, stop: int | None = None) -> int:
        """The index of the first equal value; ValueError if none. Copies the list first."""
        values = self.copy()
        return values.index(value, start, len(values) if stop is None else stop)

    def count(self, value: Any) -> int:
        """How many values are equal. Copies the list first."""
        return self.copy().count(value)

    def remove(self, value: Any) -> None:
        """Remove the first equal value; ValueError if there is none."""
        for _ in _turns(self):
            changes, values = self._snapshot()
            if value not in values:
                raise ValueError("list.remove(x): x not in list")
            place = values.index(value)
            if self._splice_if(place, place + 1, (), changes):
                return

    def sort(self, *, key: Callable[[T], Any] | None = None, reverse: bool = False) -> None:
        """Sort in place, in one step. Starts again if another process changes the list."""
        for _ in _turns(self):
            changes, values = self._snapshot()
            keys: list[Any] = values if key is None else [key(value) for value in values]
            order = sorted(range(len(keys)), key=keys.__getitem__, reverse=reverse)
            if self._rearrange_if(order, changes):
                return

    def __iadd__(self, values: Iterable[T]) -> Self:
        self.extend(values)
        return self

    def __imul__(self, times: int) -> Self:
        for _ in _turns(self):
            changes, values = self._snapshot()
            if self._splice_if(0, len(values), values * times, changes):
                break
        return self

    def __add__(self, other: Iterable[T]) -> list[T]:
        plain_other = other.copy() if isinstance(other, List) else other
        return self.copy() + plain_other if isinstance(plain_other, list) else NotImplemented

    def __radd__(self, other: list[T]) -> list[T]:
        return other + self.copy() if isinstance(other, list) else NotImplemented

    def __mul__(self, times: int) -> list[T]:
        return self.copy() * times

    __rmul__ = __mul__

    def __eq__(self, other: object) -> bool:
        if isinstance(other, List):
            return self.copy() == other.copy()
        return self.copy() == other if isinstance(other, list) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return _session.reduce_shared(_sequence_at, self, type(self))

    @_recursive_repr("[...]")
    def __repr__(self) -> str:
        return f"shoal.{type(self).__name__}({self.copy()!r})"


def _sequence_at(handle: int, cls: Any) -> Any:
    return core.Sequence.__new__(cls, handle)


@public
class Set(core.KeySet, MutableSet[T]):
    """A set that all processes of the session see and change.

    `add`, `discard`, `remove`, `pop` and `clear` are one atomic step each; a method that takes
    several values is one step per value. Values are found as `Dict` finds keys.

    >>> import shoal
    >>> seen = shoal.Set("ab")
    >>> seen.add("c")
    >>> "a" in seen, seen & {"a", "z"}, len(seen)
    (True, {'a'}, 3)
    """

    def __new__(cls, /, *args: Any, **kwargs: Any) -> Self:
        return core.KeySet.__new__(cls)

    def __init__(self, values: Iterable[T] = (), /) -> None:
        self.update(values)

    @classmethod
    def _from_iterable(cls, values: Iterable[Any]) -> Any:  # makes the results of operators
        return set(values)

    def __iter__(self) -> Iterator[T]:
        return iter(self._snapshot(core.COPY_KEYS)[1])

    def add(self, value: T) -> None:
        """Add a value unless the set has it; TypeError if it cannot be hashed."""
        self._add(value)

    def discard(self, value: Any) -> None:
        """Remove a value if the set has it."""
        self._discard(value)

    def remove(self, value: Any) -> None:
        """Remove a value; KeyError if the set does not have it. Of several processes that remove
        the same value, one succeeds.
        """
        if not self._discard(value):
            raise KeyError(value)

    def pop(self) -> T:
        """Remove and return any value, in one step; KeyError when empty."""
        pair = self._take(False)
        if pair is None:
            raise KeyError("pop from an empty set")
        value: T = pair[0]
        return value

    def copy(self) -> set[T]:
        """An ordinary set with the contents at one moment."""
        return set(self._snapshot(core.COPY_KEYS)[1])

    def update(self, *others: Iterable[T]) -> None:
        """Add all values, one step each."""
        for other in others:
            for value in other:
                self._add(value)

    def union(self, *others: Iterable[Any]) -> set[Any]:
        """An ordinary set of the values that are in any of them."""
        return self.copy().union(*others)

    def intersection(self, *others: Iterable[Any]) -> set[T]:
        """An ordinary set of the values that are in all of them."""
        return self.copy().intersection(*others)

    def difference(self, *others: Iterable[Any]) -> set[T]:
        """An ordinary set of the values that are in none of the others."""
        return self.copy().difference(*others)

    def symmetric_difference(self, other: Iterable[Any]) -> set[Any]:
        """An ordinary set of the values that are in only one of the two."""
        return self.copy().symmetric_difference(other)

    def intersection_update(self, *others: Iterable[Any]) -> None:
        """Keep only values that are in all of the others too, one step per value."""
        for value in self.copy().difference(self.intersection(*others)):
            self._discard(value)

    def difference_update(self, *others: Iterable[Any]) -> None:
        """Remove the values that are in any of the others, one step per value."""
        for other in others:
            for value in list(other):
                self._discard(value)

    def symmetric_difference_update(self, other: Iterable[T]) -> None:
        """Remove the values that the other has too, and add those that only it has, one step per
        value.
        """
        for value in set(other):
            if not self._discard(value):
                self._add(value)

    def issubset(self, other: Iterable[Any]) -> bool:
        """Whether the other contains all values that this set has at one moment."""
        return self.copy().issubset(other)

    def issuperset(self, other: Iterable[Any]) -> bool:
        """Whether this set, at one moment, contains all values of the other."""
        return self.copy().issuperset(other)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return _session.reduce_shared(_set_at, self, type(self))

    def __repr__(self) -> str:
        return f"shoal.{type(self).__name__}({self.copy() or ''!s})"


def _set_at(handle: int, cls: Any) -> Any:
    return core.KeySet.__new__(cls, handle)


@public
class Namespace(core.Namespace):
    """Attributes that all processes of the session see and change.

    Names with a leading underscore stay in this process, as ordinary attributes.

    >>> import shoal
    >>> settings = shoal.Namespace(rate=0.5)
    >>> settings.steps = 100
    >>> settings
    shoal.Namespace(rate=0.5, steps=100)
    """

    def __new__(cls, /, *args: Any, **kwargs: Any) -> Self:
        return core.Namespace.__new__(cls)

    def __init__(self, /, **values: Any) -> None:
        for name, value in values.items():
            setattr(self, name, value)

    def __dir__(self) -> list[str]:
        return sorted([*object.__dir__(self), *self._snapshot(core.COPY_KEYS)[1]])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Namespace):
            return NotImplemented
        return dict(self._snapshot(core.COPY_ITEMS)[1]) == dict(other._snapshot(core.COPY_ITEMS)[1])

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return _session.reduce_shared(_namespace_at, self, type(self))

    @_recursive_repr("Namespace(...)")
    def __repr__(self) -> str:
        values = ", ".join(
            f"{name}={value!r}" for name, value in self._snapshot(core.COPY_ITEMS)[1]
        )
        return f"shoal.{type(self).__name__}({values})"


def _namespace_at(handle: int, cls: Any) -> Any:
    return core.Namespace.__new__(cls, handle)


@public
def share(value: Any) -> Any:
    """A copy in which each dict, list and set, at any depth, is a shared one.

    All processes see changes anywhere in it. Only the builtin types themselves are converted, not
    their subclasses; anything else is a value. RecursionError for a structure that contains itself.

    >>> import shoal
    >>> state = shoal.share({"done": [], "best": {"loss": 1.0}})
    >>> state["best"]["loss"] = 0.5
    >>> state["done"].append("first")
    >>> shoal.plain(state)
    {'done': ['first'], 'best': {'loss': 0.5}}
    """
    kind = type(value)
    if kind is dict:
        return Dict((key, share(inner)) for key, inner in value.items())
    if kind is list:
        return List([share(inner) for inner in value])
    return Set(value) if kind is set else value


@public
def plain(value: Any) -> Any:
    """A copy in which each shared dict, list and set, at any depth, is an ordinary one.

    Each container is copied in one step, but the structure as a whole is not.

    >>> import shoal
    >>> shoal.plain(shoal.List([1, shoal.Set("a")]))
    [1, {'a'}]
    """
    if isinstance(value, Dict) or type(value) is dict:
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, List) or type(value) is list:
        return [plain(inner) for inner in value.copy()]
    return value.copy() if isinstance(value, Set) else value


_codec.connect_pickler()
_children.carry_session()
