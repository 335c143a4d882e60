# SPDX-License-Identifier: Apache-2.0
"""Decides which functions a worker may keep, and under which token.

A worker may keep functions, classes and built-in functions that it finds by name or that the
definitions send. It may also keep lambdas and closures whose cells and defaults contain nothing
that can change: only atoms, modules, and functions for which the same holds. Everything else is
pickled with each unit, as the standard library does: bound methods, partials, callable instances,
closures over a list.

A token identifies one state of one function object. Tokens are never reused. Functions are held
weakly, and a record is removed with its function, so a reused id does no harm.
"""

from __future__ import annotations

import itertools
import weakref
from collections import deque
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType, ModuleType

from shoal._pickling import _names
from shoal._pickling._uses import shipped_key, uses_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    from shoal._pickling._definitions import Definitions, Watch

Key = tuple[str, int]
_BUILT_IN: Final = (
    type(str.upper),
    type(int.__add__),
    type(dict.__dict__["fromkeys"]),
)


class _Record:
    __slots__ = ("key", "parts", "roots", "shipped", "watch")

    def __init__(self, token: int) -> None:
        self.key: Key = ("cached", token)
        self.shipped: _names.Key | None = None  # the name under which the function is sent
        self.roots: tuple[_names.Key, ...] = ()  # the names that the function uses
        self.watch: Watch | None = None
        # for a function sent by value: checks that it has not changed
        self.parts: list[Callable[[], bool]] | None = None


class FunctionKeys:
    """The functions of one pool."""

    def __init__(self, definitions: Definitions) -> None:
        # Weak, because the definitions own this object.
        self._definitions: Callable[[], Definitions | None] = weakref.ref(definitions)
        self._gone: deque[int] = deque()
        gone = self._gone
        self._records: _names.IdentityMap = _names.IdentityMap(
            lambda record: gone.append(record.key[1])
        )
        # next() is atomic. Two functions must never share a token, or a worker would call one of
        # them instead of the other.
        self._tokens = itertools.count()

    def dropped(self) -> list[int]:
        found = []
        while self._gone:
            found.append(self._gone.popleft())
        return found

    def key(self, function: Any) -> Key | None:
        record: _Record | None = self._records.get(function)
        if record is None:
            return self._add(function)
        watch = record.watch
        if watch is not None:
            definitions = self._definitions()
            assert definitions is not None
            if watch.generation != definitions.generation or not watch.holds():
                if record.shipped and shipped_key(function, definitions) != record.shipped:
                    return self._replace(function, record)  # its name was bound to another object
                definitions.require(record.roots)
                record.watch = definitions.watch(record.roots)
        if record.parts is not None and not all(same() for same in record.parts):
            return self._replace(function, record)
        return record.key

    def _replace(self, function: Any, record: _Record) -> Key | None:
        self._records.discard(function)
        self._gone.append(record.key[1])
        return self._add(function)

    def _add(self, function: Any) -> Key | None:
        definitions = self._definitions()
        assert definitions is not None
        record = _Record(next(self._tokens))
        if isinstance(function, BuiltinFunctionType):
            if not isinstance(function.__self__, (ModuleType, type(None))):
                return None
        elif isinstance(function, (FunctionType, type)):
            if not self._describe(function, record, definitions):
                return None
        elif type(function) not in _BUILT_IN:
            return None
        if record.roots:
            definitions.require(record.roots)
            record.watch = definitions.watch(record.roots)
        self._records.set(function, record)
        return record.key

    def _describe(self, function: Any, record: _Record, definitions: Definitions) -> bool:
        """Fill in the record; False if the function must not be kept."""
        located = _names.locate(function)
        if located and _names.place(located[0], definitions) is _names.Place.THERE:
            return True
        if located:
            record.shipped = _names.key_of(located)
            record.roots = (record.shipped,)
            return True
        if not isinstance(function, FunctionType):
            return False  # a local class: its attributes may change
        record.parts = []
        record.roots = tuple(uses_of(function, definitions))
        return _collect_parts(function, record.parts, definitions)


def _collect_parts(
    function: FunctionType, parts: list[Callable[[], bool]], definitions: Definitions
) -> bool:
    """Collect checks that a function sent by value has not changed; False if no check can tell."""
    seen: set[int] = set()
    stack = [function]
    while stack:
        current = stack.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        values = [*(current.__defaults__ or ()), *(current.__kwdefaults__ or {}).values()]
        values += vars(current).values()
        values += map(_names.cell_content, current.__closure__ or ())
        parts.append(_same_function(current))
        for value in values:
            if isinstance(value, FunctionType):
                if _names.locate(value) is None:
                    stack.append(value)
            elif not _is_fixed(value):
                return False
    return True


def _is_fixed(value: Any) -> bool:
    kinds = (ModuleType, BuiltinFunctionType)
    if _names.is_atom(value) or isinstance(value, kinds):
        return True
    return isinstance(value, type) and _names.locate(value) is not None


def _facts(function: FunctionType) -> list[Any]:
    """The objects that the pickle of a function contains, except its globals."""
    keywords = function.__kwdefaults__ or {}
    facts: list[Any] = [function.__code__, *(function.__defaults__ or ()), *keywords.values()]
    return facts + [_names.cell_content(cell) for cell in function.__closure__ or ()]


def _same_function(function: FunctionType) -> Callable[[], bool]:
    """A check that holds no reference to the function, which may be in one of its own cells."""
    reference = weakref.ref(function)
    facts = [_hold(fact) for fact in _facts(function)]

    def same() -> bool:
        now = reference()
        if now is None:
            return False
        present = _facts(now)
        return len(present) == len(facts) and all(h() is p for h, p in zip(facts, present))

    return same


def _hold(fact: Any) -> Callable[[], Any]:
    if isinstance(fact, (FunctionType, type)):
        return weakref.ref(fact)
    return lambda: fact
