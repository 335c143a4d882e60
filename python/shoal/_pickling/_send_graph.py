# SPDX-License-Identifier: Apache-2.0
"""The sending half of pickling by value: functions, cells and classes as nodes of a graph.

A node's *recipe* is enough to make it. Contents that may be on a cycle or may fail (closure
contents, defaults, attributes) follow in *parts*, which one pickler pickles one after the other
with one memo. So definitions may refer to each other in any way, nesting causes no recursion, and a
failure affects only one part. `_load_graph` describes the bytes and reads them.

On the other side, too, a function's globals are those of its module, so that functions share them
there as they do here. Only code with its own globals (`exec`) takes a copy of the names it uses.

Thread safety: a graph belongs to one pickler, which belongs to one thread at a time.
"""

from __future__ import annotations

import marshal
import pickle
import sys
from collections import deque
from types import CellType, CodeType, FunctionType, ModuleType

from shoal._pickling import _names, _rebuild
from shoal._pickling._failures import lasting_failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shoal._pickling._pickler import Pickler

_EMPTY = _names.ABSENT


class Graph:
    """The objects that one message or log entry sends by value.

    `strict`: a part that cannot be pickled fails the whole message. Otherwise the part is left out
    and `failures` says why; that is for log entries, as a function may mention objects that it
    never uses.
    """

    def __init__(self, pickler: Pickler, strict: bool) -> None:
        self.pickler = pickler
        self.strict = strict
        self.recipes: list[tuple[Any, ...]] = []
        self.names: list[tuple[int, str, str]] = []
        self.modules: dict[str, dict[str, Any]] = {}
        self.failures: list[tuple[str, str]] = []  # (what, why)
        self._parts: list[tuple[int, int, Any]] = []
        self._index: dict[int, int] = {}
        self._keep: list[Any] = []  # objects whose ids are in _index
        self._labels: dict[int, str] = {}  # cells' names, for failures
        self._fills: deque[tuple[Any, ...]] = deque()
        self._class_fills: deque[tuple[Any, ...]] = deque()
        self._last: deque[tuple[Any, ...]] = deque()

    # --- nodes ---------------------------------------------------------------------------------

    def node(self, obj: Any) -> int:
        """The number of `obj`, a function, a cell or a class."""
        index = self._index.get(id(obj))
        if index is not None:
            return index
        if isinstance(obj, CellType):
            return self._add_cell(obj)
        if isinstance(obj, type):
            from shoal._pickling import _send_class

            return _send_class.add_class(self, obj)
        return self._add_function(obj)

    def add(self, obj: Any, recipe: tuple[Any, ...]) -> int:
        index = len(self.recipes)
        self.recipes.append(recipe)
        self._index[id(obj)] = index
        self._keep.append(obj)
        return index

    @property
    def known(self) -> int:
        """The number of objects that have nodes."""
        return len(self._index)

    def has(self, obj: Any) -> bool:
        return id(obj) in self._index

    def forget(self, count: int) -> None:
        """Make all nodes but the first `count` anew when they are needed again."""
        for key in list(self._index)[count:]:
            del self._index[key]

    def later(self, *part: Any) -> None:
        """Send this part after the recipes. Parts of functions come first, then those of classes,
        then values of enumerations.
        """
        if part[0] == "values":
            self._last.append(part)
        elif part[0] in ("attribute", "virtual"):
            self._class_fills.append(part)
        else:
            self._fills.append(part)

    def _add_cell(self, cell: CellType) -> int:
        content = _names.cell_content(cell)
        if content is _EMPTY:
            return self.add(cell, ("cell",))
        if _names.is_atom(content):
            return self.add(cell, ("cell", content))
        index = self.add(cell, ("cell",))
        self.later("cell", index, content)
        return index

    def _add_function(self, function: FunctionType) -> int:
        namespace = self._namespace(function)
        cells = tuple(self.node(cell) for cell in function.__closure__ or ())
        self._labels.update(zip(cells, function.__code__.co_freevars))
        facts: dict[str, Any] = {
            "__name__": function.__name__,
            "__qualname__": function.__qualname__,
        }
        for attribute in ("__module__", "__doc__"):
            value = getattr(function, attribute)
            facts[attribute] = value if _names.is_atom(value) else None
        late: dict[str, Any] = {}
        early: dict[str, Any] = {}
        for attribute in ("__kwdefaults__", "__defaults__"):
            value = getattr(function, attribute)
            content = tuple((value or {}).values()) if attribute == "__kwdefaults__" else value
            is_early = value is None or all(map(_names.is_atom, content))
            (early if is_early else late)[attribute] = value
        recipe = (marshal.dumps(function.__code__), namespace, facts)
        defaults = (early.get("__kwdefaults__"), early.get("__defaults__"))
        index = self.add(function, ("function", *recipe, *defaults, cells))
        if late:
            self.later("function", index, late)
        if vars(function):
            self.later("dict", index, dict(vars(function)))
        self._add_annotations(index, function)
        return index

    def _add_annotations(self, index: int, function: FunctionType) -> None:
        annotations: dict[str, Any] = {}
        # 3.14 evaluates annotations here, and they may contain unbound names: then none are sent.
        lasting_failure(lambda: annotations.update(function.__annotations__))
        if annotations:
            self.later("annotations", index, annotations)

    def _namespace(self, function: FunctionType) -> str | int:
        """The name of the module whose globals the function has. If there is none, the node of a
        copy of the globals that the function uses.
        """
        variables = function.__globals__
        name = variables.get("__name__")
        definitions = self.pickler.definitions
        if isinstance(name, str):
            name = _names.canonical(name)
            module = sys.modules.get(name)
            where = _names.place(name, definitions)
            if module is not None and vars(module) is variables and where is not where.NOWHERE:
                self._use(name, function.__code__, variables, where is where.SHIPPED)
                return name
        index = self._index.get(id(variables), -1)
        if index < 0:
            index = self.add(variables, ("globals", str(name)))
        for used_name in _names.used_names(function.__code__, variables):
            if used_name in variables:
                self.later("globals", index, {used_name: variables[used_name]})
        return index

    def _use(self, name: str, code: CodeType, variables: dict[str, Any], shipped: bool) -> None:
        """Note which names of its module the code needs, and which submodules it reaches only as
        attributes of a package.

        A module that the other side imports has the same globals there, except those that an import
        hook added here. These are recognized by names that no source can bind, like pytest's
        `@pytest_ar`.
        """
        used = [n for n in _names.used_names(code, variables) if n in variables]
        if shipped:
            self.pickler.needs.update((name, n) for n in used)
        else:
            for injected in [n for n in used if not n.isidentifier()]:
                self.later("injected", 0, (name, injected, variables[injected]))
        for module in [variables[n] for n in used if isinstance(variables[n], ModuleType)]:
            for submodule in _names.used_submodules(module, [code]):
                self.later("import", 0, submodule)

    # --- parts ---------------------------------------------------------------------------------

    def drain(self) -> None:
        """Pickle all waiting parts."""
        while True:
            waiting = self._fills or self._class_fills or self._last
            if not waiting:
                return
            part = waiting.popleft()
            self.dump_part(part, self._label(part))

    def _label(self, part: tuple[Any, ...]) -> str:
        """The name that an error about this missing part would contain."""
        kind: str
        kind, index, value = part
        if kind == "cell":
            return self._labels.get(index, kind)
        if kind == "attribute":
            return str(value[0])
        return str(next(iter(value))) if kind == "globals" else kind

    def dump_part(self, part: tuple[Any, ...], what: str, again: Any = None) -> bool:
        """Append one part; False if it was left out. `what` names it in `failures`.

        `again()` is asked afterwards: if it is true, the part is taken back.
        """
        pickler = self.pickler
        chunks, buffers = len(pickler.chunks), len(pickler.buffers)
        if self.strict and part[0] not in ("annotations", "import", "injected"):
            pickler.dump(part)
            self._parts.append((sum(map(len, pickler.chunks[chunks:])), -1, None))
            return True
        memo = pickler.memo.copy()

        def take_back() -> None:
            pickler.memo = memo
            del pickler.chunks[chunks:]
            del pickler.buffers[buffers:]

        def dump() -> None:
            try:
                pickler.dump(part)
            except BaseException:
                take_back()
                raise

        failure = lasting_failure(dump)
        if failure is not None:
            self.failures.append((what, failure))
            return False
        if again is not None and again():
            take_back()
            return False
        size = sum(map(len, pickler.chunks[chunks:]))
        self._parts.append((size, len(pickler.memo.copy()), what))
        return True

    def message(self) -> bytes:
        """The whole graph as bytes. An object that was dumped before the first part becomes a part
        too.
        """
        pickler = self.pickler
        before = sum(map(len, pickler.chunks)) - sum(part[0] for part in self._parts)
        pickler.generous = True
        self.drain()
        parts = [(before, -1, None), *self._parts] if before else self._parts
        facts = (self.recipes, parts, self.names, self.modules, self.failures)
        header = pickle.dumps(facts, 5)
        start = bytes((_rebuild.GRAPH_MARK,)) + len(header).to_bytes(4, "little")
        return b"".join((start, header, *pickler.chunks))
