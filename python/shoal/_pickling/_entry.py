# SPDX-License-Identifier: Apache-2.0
"""Builds one entry of the log of definitions: a graph message without an object.

Functions and classes become nodes, which are bound to their names as soon as they are made. Then
follow modules (which the receiver imports), then the contents of functions and classes, then all
other values. So when the `__setstate__` of a value runs, the functions that it may call exist.
"""

from __future__ import annotations

from collections import deque
from types import FunctionType, ModuleType

from shoal._pickling import _names
from shoal._pickling._failures import lasting_failure
from shoal._pickling._pickler import Pickler
from shoal._pickling._send_graph import Graph
from shoal._pickling._uses import shipped_key, uses_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shoal._pickling._definitions import Definitions


class Entry:
    """`values` and `uses` are complete only after `encode`: pickling may find more names."""

    def __init__(self, definitions: Definitions, new: dict[_names.Key, Any]) -> None:
        self._definitions = definitions
        self.values: dict[_names.Key, Any] = {}
        self.left_out: set[_names.Key] = set()  # values that could not be pickled
        self.uses: dict[_names.Key, set[_names.Key]] = {}
        self._pickler = Pickler(out_of_band=False)
        self._pickler.definitions = definitions
        self._pickler.generous = self._pickler.in_round = True
        self._graph = self._pickler.graph = Graph(self._pickler, strict=False)
        self._known: set[_names.Key] = set()  # the pickler's needs that have been handled
        self._modules: deque[_names.Key] = deque()
        self._plain: deque[_names.Key] = deque()
        self._add(new)

    def encode(self) -> bytes:
        graph = self._graph
        while True:
            while self._modules:
                self._dump(self._modules.popleft())
            graph.drain()
            if self._plain and self._dump(self._plain[0]):
                self._plain.popleft()
            found = self._found()
            self._known |= found
            if found:
                self._add(self._definitions.find_new(found - self.values.keys()))
            elif not self._plain and not self._modules:
                data = graph.message()
                self._pickler.graph = None  # breaks the reference cycle of pickler and graph
                return data

    def _add(self, new: dict[_names.Key, Any]) -> None:
        new = {key: value for key, value in new.items() if key not in self.values}
        for key, value in new.items():
            self.values[key] = value
            self.uses[key] = set(uses_of(value, self._definitions))
        for key in self._in_order(new):
            value = self.values[key]
            self._graph.modules.setdefault(key[0], self._definitions.facts(key[0]))
            if isinstance(value, ModuleType):
                self._modules.append(key)
            elif not self._is_node(key, value) or not self._add_node(key, value):
                self._plain.append(key)

    def _in_order(self, new: dict[_names.Key, Any]) -> list[_names.Key]:
        """The keys, ordered so that used names precede their users, unless they form a cycle."""
        order: dict[_names.Key, None] = {}
        seen: set[_names.Key] = set()
        stack = [(key, False) for key in reversed(new)]
        while stack:
            key, is_after = stack.pop()
            if is_after:
                order[key] = None
            elif key not in seen and key in new:
                seen.add(key)
                stack.append((key, True))
                stack.extend((used, False) for used in self.uses[key])
        return list(order)

    def _is_node(self, key: _names.Key, value: Any) -> bool:
        kinds = (FunctionType, type)
        return isinstance(value, kinds) and shipped_key(value, self._definitions) == key

    def _add_node(self, key: _names.Key, value: Any) -> bool:
        if "." in value.__qualname__:  # a nested class that also has a top-level name
            return False
        graph = self._graph
        known = graph.known

        def add() -> None:
            try:
                graph.names.append((graph.node(value), *key))
            except BaseException:
                graph.forget(known)
                raise

        failure = lasting_failure(add)
        if failure is not None:
            graph.failures.append((key[1], failure))
        return True

    def _found(self) -> set[_names.Key]:
        """Names that the pickler has found since the last call."""
        return self._pickler.needs - self._known

    def _news(self) -> bool:
        """Whether the value that was just pickled needs names that are not in this entry yet."""
        return bool(self._definitions.find_new(self._found() - self.values.keys()))

    def _dump(self, key: _names.Key) -> bool:
        """Pickle the value of a name. False if names that it needs must be added first."""
        before = set(self._pickler.needs)
        part = ("bind", *key, self.values[key])
        done = self._graph.dump_part(part, key[1], again=self._news)
        self.uses[key] |= self._pickler.needs - before
        if done:
            self._known |= self._pickler.needs - before
        elif self._news():
            return False
        else:
            self.left_out.add(key)
        return True
