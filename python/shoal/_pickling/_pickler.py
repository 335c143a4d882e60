# SPDX-License-Identifier: Apache-2.0
"""Pickling of everything that the codec's fast path does not take.

`dumps(obj)` is pickle protocol 5 by reference, with these differences:

1. Functions and classes that the other side cannot find by name travel by value (`_graph`).
2. Names of `__main__` that the object needs are sent first, by the `Definitions` of the pool.
3. Modules and a few more that plain pickle refuses go as cloudpickle sends them (`_reducers`).
4. Large numpy arrays go out of band and come back writable, read-only ones too.
5. Registrations with `copyreg` and `multiprocessing.reduction.ForkingPickler` are honoured.

Users' hooks run exactly as often as plain pickle would run them. Everything here may be called from
any thread; a hook may itself call `dumps`.

Module state: `_idle` (picklers between two uses: making one costs more than a small dump),
`_handlers` (what to do for a type; cleared on new registrations).
"""

from __future__ import annotations

import copyreg
import pickle
from collections.abc import Callable
from functools import partial
from multiprocessing.reduction import ForkingPickler
from types import BuiltinFunctionType, FunctionType, MethodType

from shoal._pickling import _names, _rebuild

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    from shoal._pickling._definitions import Definitions
    from shoal._pickling._send_graph import Graph

    Handler = Callable[["Pickler", Any], Any]

PROTOCOL: Final = 5
LARGE_ARRAY: Final = 64 * 1024  # smaller ones are copied in band: they must not pin a message
_SMALL: Final = 4096  # a pickler's memo stays as large as it was once, and is cleared by memset
_HEAP_TYPE: Final = 1 << 9


class Chunks(list[bytes]):
    """A file for a pickler: large `bytes` arrive uncopied, a small pickle is one chunk."""

    __slots__ = ()
    write = list.append


class InBandChunks(Chunks):
    """The same for a pickler without buffers: what would be one arrives here whole."""

    __slots__ = ()

    def write(self, chunk: Any) -> None:
        whole: Any = chunk.raw() if type(chunk) is pickle.PickleBuffer else chunk
        self.append(whole)


class Pickler(pickle.Pickler):
    """pickle's own, with a look at each function, class and instance before it is reduced."""

    def __init__(self, out_of_band: bool = True) -> None:
        self.chunks: Chunks = Chunks() if out_of_band else InBandChunks()
        self.buffers: list[pickle.PickleBuffer] = []
        callback = self.buffers.append if out_of_band else None
        super().__init__(self.chunks, PROTOCOL, buffer_callback=callback)
        self.definitions: Definitions | None = None
        self.needs: set[_names.Key] = set()  # names that the other side must have
        self.graph: Graph | None = None  # what travels by value; made when first needed
        self.by_name = False  # nothing travels by value
        self.generous = False  # reduce also locks, thread-locals...: inside definitions
        self.in_round = False  # this is a log entry: only names of earlier entries are there

    def reducer_override(self, obj: Any, /) -> Any:
        kind = type(obj)
        entry = _entries.get(id(kind))
        handler = entry[1] if entry is not None else _classify(kind)
        if self.generous and kind is not FunctionType:
            from shoal._pickling._reducers import reduce_odd

            reduced = reduce_odd(self, obj, handler is _no_handler)
            if reduced is not NotImplemented:
                return reduced
        return NotImplemented if handler is _no_handler else handler(self, obj)

    def by_value(self, obj: Any) -> Any:
        if self.by_name:
            return NotImplemented  # so that pickle raises what it raises for the standard library
        if self.graph is None:
            from shoal._pickling._send_graph import Graph

            self.graph = Graph(self, strict=True)
        return _rebuild.node, (self.graph.node(obj),)

    def message(self) -> bytes:
        """The bytes of what was dumped by a pickler that serves once."""
        return self.graph.message() if self.graph is not None else b"".join(self.chunks)


_idle: list[Pickler] = []


def dumps(
    obj: Any, definitions: Definitions | None = None, by_name: bool = False
) -> tuple[bytes, list[pickle.PickleBuffer] | None]:
    """Pickle `obj`: the bytes, and the buffers that go out of band (None when there are none).

    definitions: of the pool that is to have it; what the object needs of `__main__` is in their log
    afterwards. by_name: nothing travels by value; what the standard library cannot pickle raises.
    """
    if _registered != len(_copyreg_table) + len(_extra_reducers):
        _look_at_registrations()
    try:
        pickler = _idle.pop()
    except IndexError:
        pickler = Pickler()
    pickler.definitions = definitions
    pickler.by_name = by_name
    pickler.dump(obj)  # on an exception the pickler is dropped with its half-filled memo
    chunks, buffers = pickler.chunks, None
    if pickler.graph is not None:
        data = pickler.graph.message()
        pickler.graph, pickler.generous = None, False
    else:
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    if pickler.buffers:
        buffers = pickler.buffers.copy()
        pickler.buffers.clear()
    if pickler.needs:
        if definitions is not None:
            definitions.require(pickler.needs)
        pickler.needs.clear()
    if len(data) <= _SMALL:
        chunks.clear()
        pickler.clear_memo()
        pickler.definitions = None
        _idle.append(pickler)
    return data, buffers


def loads(data: Any, buffers: Any = None) -> Any:
    """The object that `dumps` took."""
    if type(data) is not bytes:
        data = memoryview(data)  # a block of shared memory
    if data[0] == _rebuild.GRAPH_MARK:
        from shoal._pickling import _load_graph

        return _load_graph.load_message(data, buffers)
    return pickle.loads(data, buffers=buffers or ())


def dumps_in_band(obj: Any, definitions: Definitions | None, generous: bool = False) -> bytes:
    """`obj` as one piece of bytes; `generous` reduces what only definitions may carry."""
    pickler = Pickler(out_of_band=False)
    pickler.definitions = definitions
    pickler.generous = generous
    pickler.dump(obj)
    data = pickler.message()
    pickler.graph = None  # they refer to each other
    if pickler.needs and definitions is not None:
        definitions.require(pickler.needs)
    return data


# --- what to do for a type ---------------------------------------------------------------------


def _no_handler(pickler: Pickler, obj: Any) -> Any:
    return NotImplemented


def _by_name_or_value(pickler: Pickler, obj: Any) -> Any:
    """Functions and classes."""
    if id(obj) in _by_name_entries:
        return NotImplemented
    definitions = pickler.definitions
    if definitions is not None:
        own = definitions.own_names.get(id(obj))
        if own is not None and own[0](own[1]) is obj:
            pickler.needs.add(own[2])
            return NotImplemented
    located = _names.locate(obj)
    if located is None:
        key = definitions.key_of_sent(obj) if pickler.generous and definitions else None
        if key is not None:
            pickler.needs.add(key)
            return _rebuild.named, key
        if isinstance(obj, type):
            from shoal._pickling._reducers import reduce_built_in_type

            reduced = reduce_built_in_type(obj)
            if reduced is not NotImplemented or not obj.__flags__ & _HEAP_TYPE:
                return reduced
        return pickler.by_value(obj)
    where = _names.place(located[0], pickler.definitions)
    if where is _names.Place.SHIPPED:
        pickler.needs.add(_names.key_of(located))
    elif where is _names.Place.NOWHERE:
        return pickler.by_value(obj)
    elif located[0] != _names.MAIN:
        _by_name.set(obj, True)
    return NotImplemented


def _custom(pickler: Pickler, obj: Any) -> Any:
    """Instances with a reducer of their own: it is called once, here instead of by pickle."""
    kind = type(obj)
    reducer = _extra_reducers.get(kind) or _copyreg_table.get(kind)
    reduced = obj.__reduce_ex__(PROTOCOL) if reducer is None else reducer(obj)
    if type(reduced) is str:
        return _reduce_named(pickler, obj, reduced)
    return reduced


def _reduce_named(pickler: Pickler, obj: Any, name: str) -> Any:
    """`obj` is a global of that name: a singleton, a TypeVar, an lru_cache function."""
    module_name = getattr(obj, "__module__", None)
    module_name = _names.canonical(module_name) if isinstance(module_name, str) else _names.MAIN
    if _names.place(module_name, pickler.definitions) is _names.Place.SHIPPED:
        key = (module_name, name.partition(".")[0])
        definitions = pickler.definitions
        if pickler.in_round and definitions is not None and not definitions.has_sent(key):
            from shoal._pickling._reducers import reduce_plainly

            return reduce_plainly(obj)
        pickler.needs.add(key)
    return name


def _lru_cache_function(pickler: Pickler, obj: Any) -> Any:
    located = _names.locate(obj)
    if located is None:
        from shoal._pickling._reducers import reduce_lru_cache

        return reduce_lru_cache(obj)
    definitions = pickler.definitions
    where = _names.place(located[0], definitions)
    if where is _names.Place.THERE:
        return NotImplemented
    key = _names.key_of(located)
    if definitions is None or (pickler.in_round and not definitions.has_sent(key)):
        from shoal._pickling._reducers import reduce_lru_cache

        return reduce_lru_cache(obj)
    pickler.needs.add(key)
    return NotImplemented


def _array(pickler: Pickler, array: Any) -> Any:
    if array.dtype.hasobject:
        return NotImplemented
    if array.nbytes < LARGE_ARRAY and array.dtype.isnative:
        return array.__reduce__()  # which turns swapped byte orders into the machine's own
    if not (array.flags.c_contiguous or array.flags.f_contiguous):
        array = array.copy(order="C")
    order = "C" if array.flags.c_contiguous else "F"
    flat = array.reshape(-1, order=order).view("u1")
    arguments = (pickle.PickleBuffer(flat), array.dtype, array.shape, order)
    return _rebuild.array, arguments


def _registered_reducer(pickler: Pickler, obj: Any) -> Any:
    return _custom(pickler, obj)


def _as_cloudpickle_does(pickler: Pickler, obj: Any) -> Any:
    """Modules, views of a dictionary...: libraries that reckon with cloudpickle send them."""
    if pickler.by_name:
        return NotImplemented
    from shoal._pickling._reducers import reduce_harmless

    return reduce_harmless(pickler, obj)


def _classify(kind: type) -> Handler:
    """Decide once for a type. A type's own reducers are not expected to change afterwards."""
    handler = _handler_of(kind)
    _handlers.set(kind, handler)
    return handler


def _handler_of(kind: type) -> Handler:
    if kind is FunctionType or issubclass(kind, type):
        return _by_name_or_value
    method_kinds = (MethodType, partial, type(list.append), type(int.__add__))
    if kind in _copyreg_table or kind in _extra_reducers:
        # multiprocessing registers these only because pickle once could not do them.
        return _no_handler if kind in method_kinds else _registered_reducer
    if kind.__module__ == "numpy" and kind.__name__ == "ndarray":
        return _array
    if kind.__module__ == "functools" and kind.__name__ == "_lru_cache_wrapper":
        return _lru_cache_function
    if kind is BuiltinFunctionType:
        return _no_handler
    from shoal._pickling._reducers import is_harmless

    if is_harmless(kind):
        return _as_cloudpickle_does
    own = kind.__reduce_ex__ is not object.__reduce_ex__ or kind.__reduce__ is not object.__reduce__
    if own and (kind.__flags__ & _HEAP_TYPE or kind.__module__ in ("typing", "_typing")):
        return _custom
    return _no_handler


_handlers: _names.IdentityMap = _names.IdentityMap()
_by_name: _names.IdentityMap = _names.IdentityMap()
# The insides of the maps: one dictionary look-up for each object.
_entries = _handlers._entries
_by_name_entries = _by_name._entries
_copyreg_table: Final = copyreg.dispatch_table
_extra_reducers: dict[type, Any] = {}
_registered = -1


def _look_at_registrations() -> None:
    """Somebody has registered reducers since the last time: types have to be looked at again."""
    global _registered, _extra_reducers
    _extra_reducers = ForkingPickler._extra_reducers  # type: ignore[attr-defined]
    _registered = len(_copyreg_table) + len(_extra_reducers)
    _handlers.clear()
