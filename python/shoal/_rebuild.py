# SPDX-License-Identifier: Apache-2.0
"""The receiving half of pickling by value: makes functions, cells and classes from their recipes.

A *graph message* is  mark (1 byte) | size of header (4, little endian) | header | parts.
The header is a plain pickle of (recipes, parts, names, modules, failures):

    recipes  one tuple per node, made in order: ("function", ...), ("cell", ...), ("globals", ...),
             ("class", ...), ("enum", ...), ("namedtuple", ...). A recipe refers only to nodes
             before it, so cycles are closed by the parts.
    parts    (size, memo, what): each part is one pickle; all share one memo, of `memo` objects
             after it, so that what two parts refer to stays one object. memo -1: must not fail.
    names    (node, module, name): bound in the module as soon as the node is made.
    modules  name -> facts (`__file__`, ...): modules to be there before all else.
    failures (what, why): what the sender had to leave out.

Messages have neither names nor modules nor failures; log entries have no object.

The first part of a `dumps` message is the object; every other part is (kind, ...) for `fill`.

Module state: `_loading` (each thread's stack of node lists), `main_globals` (set once, before any
entry is applied), `tokens` and `_by_token` (classes that travelled by value: a class that comes
back is the class that left).
"""

from __future__ import annotations

import builtins
import functools
import io
import marshal
import os
import pickle
import sys
import threading
import weakref
from collections.abc import Callable
from types import CellType, FunctionType

from shoal import _imports, _names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

GRAPH_MARK: Final = 1
_LOST: Final = object()  # in the memo: an object of a part that could not be loaded

Failed = Callable[[str, BaseException], None]  # (what, why)


class _Loading(threading.local):
    nodes: list[Any] | None = None


_loading = _Loading()
# Where the functions of a main module that `runpy` has run find their globals: the module that
# multiprocessing then puts in its place has a copy of them.
main_globals: dict[str, Any] | None = None
tokens: _names.IdentityMap = _names.IdentityMap()
_by_token: weakref.WeakValueDictionary[str, type] = weakref.WeakValueDictionary()


def module_named(name: str) -> Any:
    return _imports.import_module(name)


def token_of(cls: type) -> str:
    """The name of a class that has none: the same in every process that it reaches."""
    token: str | None = tokens.get(cls)
    if token is None:
        token = os.urandom(12).hex()
        remember(cls, token)
    return token


def remember(cls: type, token: str) -> None:
    tokens.set(cls, token)
    _by_token[token] = cls


def class_of(token: str) -> type | None:
    return _by_token.get(token)


def node(index: int) -> Any:
    """A node of the message that this thread is loading (pickles call this)."""
    nodes = _loading.nodes
    if nodes is None:
        raise pickle.UnpicklingError("shoal: a part of a message, loaded on its own")
    return nodes[index]


class _Recovering(pickle.Unpickler):
    """An unpickler whose memo is made by a pickle: it cannot be assigned (CPython loses it)."""

    lost: list[Any]

    def persistent_load(self, index: Any, /) -> Any:
        return self.lost[index]


def _recall(count: int) -> bytes:
    """A pickle that puts `count` persistent objects into the memo."""
    body = b"".join(b"J%sQ\x94\x30" % i.to_bytes(4, "little") for i in range(count))
    return b"\x80\x05" + body + b"N."


class Loader:
    """One graph message while it is loaded."""

    def __init__(self, data: Any, buffers: Any = None) -> None:
        view = memoryview(data)
        start = 5 + int.from_bytes(view[1:5], "little")
        header = pickle.loads(view[5:start])
        self.recipes, self._parts, self.names, self.modules, self.failures = header
        self._stream = view[start:]
        self._buffers = iter(buffers or ())
        self._unpickler = pickle.Unpickler(io.BytesIO(self._stream), buffers=self._buffers)
        self.nodes: list[Any] = []
        self.known: set[int] = set()  # nodes that were here already: their parts are skipped

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
        """After part `index` could not be loaded: go on behind it, with the memo filled up."""
        end = sum(part[0] for part in self._parts[: index + 1])
        known: dict[int, Any] = dict(self._unpickler.memo.copy())
        count = self._parts[index][1]
        file = io.BytesIO(_recall(count) + bytes(self._stream[end:]))
        unpickler = _Recovering(file, buffers=self._buffers)
        unpickler.lost = [known.get(i, _LOST) for i in range(count)]
        unpickler.load()
        self._unpickler = unpickler

    def fill_from(self, first: int, failed: Failed | None, bind: Any = None) -> None:
        """Load the parts from `first` on and put each where it belongs."""
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
        self._outer, _loading.nodes = _loading.nodes, self.nodes
        return self

    def __exit__(self, *exception: object) -> None:
        _loading.nodes = self._outer

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
        variables = module_dict(namespace) if type(namespace) is str else self.nodes[namespace]
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
        known = class_of(token)
        if known is not None:
            self.known.add(len(self.nodes))
            return known
        from shoal import _classes

        made = _classes.create(self, kind, description)
        remember(made, token)
        return made

    def resolve(self, spec: tuple[Any, ...]) -> Any:
        """What a reference in a recipe means: see `_describe.py`, which writes them."""
        kind = spec[0]
        if kind == "o":
            return spec[1]
        if kind == "n":
            found = self.nodes[spec[1]]
            if found is _LOST:
                raise pickle.UnpicklingError("shoal: a definition it needs could not be made")
            return found
        if kind == "m":
            return named(spec[1], spec[2])
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
            module_dict(module_name).setdefault(name, content)
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
            from shoal import _classes

            _classes.fill(target, kind, value)


def load_message(data: Any, buffers: Any) -> Any:
    """The object of a graph message made by `dumps`."""
    with Loader(data, buffers) as loader:
        loader.create()
        obj = loader.load_part()
        loader.fill_from(1, None)
    return obj


# --- what pickles call --------------------------------------------------------------------------


def module_dict(name: str) -> dict[str, Any]:
    """The globals of the module's functions."""
    if name == _names.MAIN and main_globals is not None:
        return main_globals
    module = sys.modules.get(name)
    return vars(_imports.import_module(name) if module is None else module)


def named(module_name: str, qualname: str) -> Any:
    """An object by its name in this process."""
    found: Any = sys.modules.get(module_name) or _imports.import_module(module_name)
    for part in qualname.split("."):
        found = getattr(found, part)
    return found


def array(buffer: Any, dtype: Any, shape: tuple[int, ...], order: Any) -> Any:
    import numpy

    made = numpy.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)
    return made if made.flags.writeable else made.copy(order=order)


def reduce_built_in_type(cls: type) -> Any:
    """A type of an extension that a module holds under another name (3.10's `_thread.lock`)."""
    for module_name in (cls.__module__, "types"):
        module = sys.modules.get(module_name)
        if module is not None and _names.importable(module_name):
            for name, value in list(vars(module).items()):
                if value is cls:
                    return named, (module_name, name)
    return NotImplemented


_OF_WRAPPER: Final = frozenset(
    {*functools.WRAPPER_ASSIGNMENTS, "__wrapped__", "cache_parameters", "__annotate__"}
)


def lru_cache(function: Any, maxsize: int | None, typed: bool) -> Any:
    return functools.lru_cache(maxsize, typed)(function)


def reduce_lru_cache(function: Any) -> Any:
    """A function under `functools.lru_cache`, with an empty cache."""
    parameters = function.cache_parameters()
    extra = {k: v for k, v in vars(function).items() if k not in _OF_WRAPPER}
    arguments = (function.__wrapped__, parameters["maxsize"], parameters["typed"])
    return lru_cache, arguments, extra or None


def reduce_plainly(obj: Any) -> Any:
    """An instance by its class and state, without its own reducer."""
    import copyreg

    if type(obj).__module__ in ("typing", "_typing"):
        from shoal import _reducers

        reduced = _reducers.reduce_by_cloudpickle(obj)
        if reduced is not NotImplemented:
            return reduced
    state: Any = dict(getattr(obj, "__dict__", None) or {}) or None
    slots = copyreg._slotnames(type(obj))  # type: ignore[attr-defined]
    held = {name: getattr(obj, name) for name in slots if hasattr(obj, name)}
    return copyreg.__newobj__, (type(obj),), (state, held) if held else state  # type: ignore[attr-defined]
