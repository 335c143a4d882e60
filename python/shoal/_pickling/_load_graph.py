# SPDX-License-Identifier: Apache-2.0
"""The receiving half of pickling by value: makes functions, cells and classes from their recipes.

A *graph message* is  mark (1 byte) | size of header (4, little endian) | header | parts.
The header is a plain pickle of (recipes, parts, names, modules, failures):

    recipes  one tuple per node, in the order of making: ("function", ...), ("cell", ...),
             ("globals", ...), ("class", token, kind, ...). A recipe refers only to earlier nodes;
             parts close the cycles.
    parts    (size, memo, what): each part is one pickle. All parts share one memo, so that an
             object to which two parts refer stays one object; after the part it has `memo` objects.
             memo -1: the part must not fail.
    names    (node, module, name): bound in the module as soon as the node is made.
    modules  name -> facts (`__file__`, ...): modules that must exist before everything else.
    failures (what, why): what the sender had to leave out.

Messages have no names, modules or failures; log entries have no object.

The first part of a `dumps` message is the object; every other part is (kind, ...) for `_fill`.
"""

from __future__ import annotations

import builtins
import io
import marshal
import pickle
from collections.abc import Callable
from types import CellType, FunctionType

from shoal._pickling import _load_class, _rebuild, _tokens
from shoal._runtime import _imports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

_LOST: Final = object()  # in the memo: an object of a part that could not be loaded

Failed = Callable[[str, BaseException], None]  # (what, why)


class _Recovering(pickle.Unpickler):
    """An unpickler whose memo is filled by a pickle: CPython loses a memo that is assigned."""

    lost: list[Any]

    def persistent_load(self, index: Any, /) -> Any:
        return self.lost[index]


def _recall(count: int) -> bytes:
    """A pickle that puts `count` persistent objects into the memo."""
    body = b"".join(b"J%sQ\x94\x30" % i.to_bytes(4, "little") for i in range(count))
    return b"\x80\x05" + body + b"N."


class Loader:
    """Loads one graph message."""

    def __init__(self, data: Any, buffers: Any = None) -> None:
        view = memoryview(data)
        start = 5 + int.from_bytes(view[1:5], "little")
        header = pickle.loads(view[5:start])
        self.recipes, self._parts, self.names, self.modules, self.failures = header
        self._stream = view[start:]
        self._buffers = iter(buffers or ())
        self._unpickler = pickle.Unpickler(io.BytesIO(self._stream), buffers=self._buffers)
        self.nodes: list[Any] = []
        self.known: set[int] = set()  # classes that this process already has: skip their parts

    def create(self, failed: Failed | None = None, bind: Any = None) -> None:
        names: dict[int, list[tuple[str, str]]] = {}
        for index, module_name, name in self.names:
            names.setdefault(index, []).append((module_name, name))
        for index, recipe in enumerate(self.recipes):
            made: Any = _LOST
            try:
                made = getattr(self, "_make_" + recipe[0])(*recipe[1:])
            except Exception as error:
                if failed is None:
                    raise
                for _module_name, name in names.pop(index, [("", "")]):
                    failed(name, error)
            self.nodes.append(made)
            for module_name, name in names.get(index, ()):
                bind(module_name, name, made)

    def load_part(self) -> Any:
        """The next part."""
        return self._unpickler.load()

    def skip_part(self, index: int) -> None:
        """After part `index` failed to load: continue with the next part, and fill up the memo."""
        end = sum(part[0] for part in self._parts[: index + 1])
        known: dict[int, Any] = dict(self._unpickler.memo.copy())
        count = self._parts[index][1]
        file = io.BytesIO(_recall(count) + bytes(self._stream[end:]))
        unpickler = _Recovering(file, buffers=self._buffers)
        unpickler.lost = [known.get(i, _LOST) for i in range(count)]
        unpickler.load()
        self._unpickler = unpickler

    def fill_from(self, first: int, failed: Failed | None, bind: Any = None) -> None:
        """Load the parts from `first` on, and store the content of each in its node."""
        for index in range(first, len(self._parts)):
            _size, memo, what = self._parts[index]
            part = None
            try:
                part = self.load_part()
                self._fill(part, bind)
            except Exception as error:
                if memo < 0:
                    raise
                if part is None:
                    self.skip_part(index)
                if failed is not None:
                    failed(what, error)

    def __enter__(self) -> Loader:
        self._outer, _rebuild.loading.nodes = _rebuild.loading.nodes, self.nodes
        return self

    def __exit__(self, *exception: object) -> None:
        _rebuild.loading.nodes = self._outer

    # --- nodes ---------------------------------------------------------------------------------

    def _make_cell(self, *content: Any) -> CellType:
        return CellType(*content)

    def _make_globals(self, name: str) -> dict[str, Any]:
        return {"__name__": name, "__builtins__": builtins}

    def _make_function(
        self,
        code: bytes,
        namespace: Any,
        facts: dict[str, Any],
        kwdefaults: Any,
        defaults: Any,
        cells: tuple[int, ...],
    ) -> FunctionType:
        is_module = type(namespace) is str
        variables = _rebuild.module_dict(namespace) if is_module else self.nodes[namespace]
        closure = tuple(self.nodes[c] for c in cells)
        function = FunctionType(
            marshal.loads(code), variables, facts["__name__"], defaults, closure or None
        )
        for attribute, value in facts.items():
            setattr(function, attribute, value)
        if kwdefaults:
            function.__kwdefaults__ = dict(kwdefaults)
        return function

    def _make_class(self, token: str, kind: str, description: dict[str, Any]) -> type:
        known = _tokens.class_of(token)
        if known is not None:
            self.known.add(len(self.nodes))
            return known
        made = _load_class.create(self, kind, description)
        _tokens.remember(made, token)
        return made

    def resolve(self, spec: tuple[Any, ...]) -> Any:
        """The object of a reference in a recipe. `_send_class.py` writes and describes them."""
        kind = spec[0]
        if kind == "o":
            return spec[1]
        if kind == "n":
            found = self.nodes[spec[1]]
            if found is _LOST:
                raise pickle.UnpicklingError("shoal: a definition it needs could not be made")
            return found
        if kind == "m":
            return _rebuild.named(spec[1], spec[2])
        if kind == "static":
            return staticmethod(self.resolve(spec[1]))
        if kind == "class":
            return classmethod(self.resolve(spec[1]))
        getter, setter, deleter = (self.resolve(s) for s in spec[1:4])
        return property(getter, setter, deleter, spec[4])

    # --- parts ---------------------------------------------------------------------------------

    def _fill(self, part: tuple[Any, ...], bind: Any) -> None:
        kind = part[0]
        if kind == "bind":
            bind(*part[1:])
            return
        index, value = part[1], part[2]
        if kind == "import":
            _imports.import_module(value)
            return
        if kind == "injected":
            module_name, name, content = value
            _rebuild.module_dict(module_name).setdefault(name, content)
            return
        if index in self.known:
            return
        target = self.nodes[index]
        if kind == "cell":
            target.cell_contents = value
        elif kind == "function":
            for attribute, content in value.items():
                setattr(target, attribute, content)
        elif kind == "dict":
            target.__dict__.update(value)
        elif kind == "annotations":
            if isinstance(target, type):
                type.__setattr__(target, "__annotations__", value)
            else:
                target.__annotations__ = value
        elif kind == "globals":
            target.update(value)
        else:
            _load_class.fill(target, kind, value)


def load_message(data: Any, buffers: Any) -> Any:
    """The object of a graph message made by `dumps`."""
    with Loader(data, buffers) as loader:
        loader.create()
        obj = loader.load_part()
        loader.fill_from(1, None)
    return obj
