# SPDX-License-Identifier: Apache-2.0
"""One entry of the log of definitions while it is made: a graph without an object.

Functions and classes become nodes, which are bound to their names as soon as they are made; then
come modules (imported there), then what functions and classes hold, then all other values. So by
the time a value's `__setstate__` runs, the functions that it may call are there.
"""

from __future__ import annotations

from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from shoal import _names
from shoal._graph import Graph
from shoal._pickling import Pickler
from shoal._uses import shipped_key, uses_of

if TYPE_CHECKING:
    from shoal._definitions import Definitions


class Entry:
    """`values` and `uses` are complete after `encode`: pickling may find more names."""

    def __init__(self, definitions: Definitions, new: dict[_names.Key, Any]) -> None:
        self._definitions = definitions
        self.values: dict[_names.Key, Any] = {}
        self.left_out: set[_names.Key] = set()  # could not be pickled
        self.uses: dict[_names.Key, set[_names.Key]] = {}
        self._pickler = Pickler(out_of_band=False)
        self._pickler.definitions = definitions
        self._pickler.generous = self._pickler.in_round = True
        self._graph = self._pickler.graph = Graph(self._pickler, strict=False)
        self._modules: list[_names.Key] = []
        self._plain: list[_names.Key] = []
        self._add(new)

    def encode(self) -> bytes:
        graph = self._graph
        known: set[_names.Key] = set()
        while True:
            self._dump(self._modules)
            graph.drain()
            self._dump(self._plain[:1])
            del self._plain[:1]
            found = self._pickler.needs - known
            known |= found
            if found:
                self._add(self._definitions.find_new(found - self.values.keys()))
            elif not self._plain and not self._modules:
                return graph.message()

    def _add(self, new: dict[_names.Key, Any]) -> None:
        for key, value in new.items():
            if key in self.values:
                continue
            self.values[key] = value
            self.uses[key] = set(uses_of(value, self._definitions))
            self._graph.modules.setdefault(key[0], self._definitions.facts(key[0]))
            if isinstance(value, ModuleType):
                self._modules.append(key)
            elif not self._is_node(key, value) or not self._add_node(key, value):
                self._plain.append(key)

    def _is_node(self, key: _names.Key, value: Any) -> bool:
        kinds = (FunctionType, type)
        return isinstance(value, kinds) and shipped_key(value, self._definitions) == key

    def _add_node(self, key: _names.Key, value: Any) -> bool:
        if "." in value.__qualname__:  # a nested class under a name of its own too
            return False
        try:
            self._graph.names.append((self._graph.node(value), *key))
        except Exception as error:
            self._graph.failures.append((key[1], str(error) or type(error).__name__))
        return True

    def _dump(self, keys: list[_names.Key]) -> None:
        for key in keys:
            before = set(self._pickler.needs)
            if not self._graph.dump_part(("bind", *key, self.values[key]), key[1]):
                self.left_out.add(key)
            self.uses[key] |= self._pickler.needs - before
        if keys is self._modules:
            keys.clear()
