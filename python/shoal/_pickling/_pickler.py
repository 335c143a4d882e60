# SPDX-License-Identifier: Apache-2.0
"""Pickles every object that the codec's fast path does not handle.

`dumps(obj)` is pickle protocol 5 by reference, with these differences:

1. Functions and classes that the other side cannot find by name are sent by value (`_send_graph`).
2. Names of `__main__` that the object needs are sent first, by the `Definitions` of the pool.
3. Modules and a few other types that plain pickle refuses are sent as cloudpickle sends them
   (`_reducers`).
4. Large numpy arrays are sent out of band and arrive writable, even if they were read-only.
5. Registrations with `copyreg` and `multiprocessing.reduction.ForkingPickler` are honoured.

Users' hooks run exactly as often as plain pickle would run them. Every function here may be called
from any thread; a hook may itself call `dumps`.

Module state: `_idle` (unused picklers: making one costs more than a small dump), `_handlers` (the
handler for each type; cleared on new registrations), `_by_name` (functions and classes that are
known to be found by name), `_registered` and `_extra_reducers` (registrations seen last).
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
LARGE_ARRAY: Final = 64 * 1024  # smaller arrays are copied in band, so that they pin no message
# Only picklers of dumps up to this size are reused: a memo never shrinks, and is cleared by memset.
_SMALL: Final = 4096
_HEAP_TYPE: Final = 1 << 9


class Chunks(list[bytes]):
    """The output file of a pickler. Large `bytes` are not copied; a small pickle is one chunk."""

    __slots__ = ()
    write = list.append


class InBandChunks(Chunks):
    """The same for a pickler without out-of-band buffers: a PickleBuffer is one chunk."""

    __slots__ = ()

    def write(self, chunk: Any) -> None:
        whole: Any = chunk.raw() if type(chunk) is pickle.PickleBuffer else chunk
        self.append(whole)


class Pickler(pickle.Pickler):
    """pickle's own pickler, with a handler for each function, class and instance."""

    def __init__(self, out_of_band: bool = True) -> None:
        self.chunks: Chunks = Chunks() if out_of_band else InBandChunks()
        self.buffers: list[pickle.PickleBuffer] = []
        callback = self.buffers.append if out_of_band else None
        super().__init__(self.chunks, PROTOCOL, buffer_callback=callback)
        self.definitions: Definitions | None = None
        self.needs: set[_names.Key] = set()  # names that the other side must have
        self.graph: Graph | None = None  # objects sent by value; made when first needed
        self.by_name = False  # send nothing by value
        self.generous = False  # reduce locks, thread-locals... too: inside definitions
        self.in_round = False  # pickling a log entry: only names of earlier entries exist

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
            return NotImplemented  # so that pickle raises the same error as in the standard library
        if self.graph is None:
            from shoal._pickling._send_graph import Graph

            self.graph = Graph(self, strict=True)
        return _rebuild.node, (self.graph.node(obj),)

    def message(self) -> bytes:
        """The bytes that were dumped; for a pickler that is used once."""
        return self.graph.message() if self.graph is not None else b"".join(self.chunks)


_idle: list[Pickler] = []


def dumps(
    obj: Any, definitions: Definitions | None = None, by_name: bool = False
) -> tuple[bytes, list[pickle.PickleBuffer] | None]:
    """Pickle `obj`: the bytes, and the buffers that go out of band (None when there are none).

    definitions: those of the receiving pool; afterwards their log has the names of `__main__` that
    the object needs. by_name: send nothing by value, and raise for an object that the standard
    library cannot pickle.
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
    """The object that `dumps` pickled."""
    if type(data) is not bytes:
        data = memoryview(data)  # a block of shared memory
    if data[0] == _rebuild.GRAPH_MARK:
        from shoal._pickling import _load_graph

        return _load_graph.load_message(data, buffers)
    return pickle.loads(data, buffers=buffers or ())


def dumps_in_band(obj: Any, definitions: Definitions | None, generous: bool = False) -> bytes:
    """`obj` as one bytes object. `generous`: also reduce objects that only definitions may
    contain.
    """
    pickler = Pickler(out_of_band=False)
    pickler.definitions = definitions
    pickler.generous = generous
    pickler.dump(obj)
    data = pickler.message()
    pickler.graph = None  # breaks the reference cycle of pickler and graph
    if pickler.needs and definitions is not None:
        definitions.require(pickler.needs)
    return data


# --- handlers by type --------------------------------------------------------------------------


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
    """Instances with their own reducer: it is called once, here instead of by pickle."""
    kind = type(obj)
    reducer = _extra_reducers.get(kind) or _copyreg_table.get(kind)
    reduced = obj.__reduce_ex__(PROTOCOL) if reducer is None else reducer(obj)
    if type(reduced) is str:
        return _reduce_named(pickler, obj, reduced)
    return reduced


def _reduce_named(pickler: Pickler, obj: Any, name: str) -> Any:
    """For an object whose reducer returns a global's name: a singleton, a TypeVar, an lru_cache
    function.
    """
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
        return array.__reduce__()  # native only: it would replace a swapped byte order
    if not (array.flags.c_contiguous or array.flags.f_contiguous):
        array = array.copy(order="C")
    order = "C" if array.flags.c_contiguous else "F"
    flat = array.reshape(-1, order=order).view("u1")
    arguments = (pickle.PickleBuffer(flat), array.dtype, array.shape, order)
    return _rebuild.array, arguments


def _registered_reducer(pickler: Pickler, obj: Any) -> Any:
    return _custom(pickler, obj)


def _as_cloudpickle_does(pickler: Pickler, obj: Any) -> Any:
    """Modules, views of a dictionary and others: libraries that expect cloudpickle send them."""
    if pickler.by_name:
        return NotImplemented
    from shoal._pickling._reducers import reduce_harmless

    return reduce_harmless(pickler, obj)


def _classify(kind: type) -> Handler:
    """Choose the handler of a type, once. A type's own reducers must not change later."""
    handler = _handler_of(kind)
    _handlers.set(kind, handler)
    return handler


def _handler_of(kind: type) -> Handler:
    if kind is FunctionType or issubclass(kind, type):
        return _by_name_or_value
    method_kinds = (MethodType, partial, type(list.append), type(int.__add__))
    if kind in _copyreg_table or kind in _extra_reducers:
        # multiprocessing registers these only because old versions of pickle could not pickle them.
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
# The dictionaries inside the maps, for one direct look-up per object.
_entries = _handlers._entries
_by_name_entries = _by_name._entries
_copyreg_table: Final = copyreg.dispatch_table
_extra_reducers: dict[type, Any] = {}
_registered = -1


def _look_at_registrations() -> None:
    """Reducers were registered since the last call: choose the handlers of all types again."""
    global _registered, _extra_reducers
    _extra_reducers = ForkingPickler._extra_reducers  # type: ignore[attr-defined]
    _registered = len(_copyreg_table) + len(_extra_reducers)
    _handlers.clear()
