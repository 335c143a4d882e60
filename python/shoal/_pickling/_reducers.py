# SPDX-License-Identifier: Apache-2.0
"""Reducers for objects that plain pickle refuses.

A global, a closure or a class attribute may hold a lock, a module, a property, or stdout. In
definitions, the other side gets a new object of the same kind. In arguments and results, only types
that cloudpickle sends too are reduced (`is_harmless`). A lock or a thread-local is an error there,
as in pickle, because the copy would have no relation to the original.
"""

from __future__ import annotations

import copyreg
import functools
import gc
import marshal
import sys
import threading
import types
import weakref

from shoal._pickling import _names, _rebuild

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    from shoal._pickling._pickler import Pickler

_LOCK: Final = type(threading.Lock())
_RLOCK: Final = type(threading.RLock())
# Types by `kind.__name__`, so that their modules need not be imported.
_CONTENTS: Final = frozenset(
    {
        "memoryview",
        "WeakSet",
        "dict_keys",
        "dict_values",
        "dict_items",
        "odict_keys",
        "odict_values",
        "odict_items",
    }
)
_BY_CLOUDPICKLE: Final = _CONTENTS | {"TypeVar", "ParamSpec", "TypeVarTuple"}


def reduce_odd(pickler: Pickler, obj: Any, is_plain: bool) -> Any:
    """The reduction of `obj` by a reducer of this module; NotImplemented if it needs none."""
    kind = type(obj)
    reducer = _REDUCERS.get(kind)
    if reducer is not None:
        return reducer(pickler, obj)
    definitions = pickler.definitions
    if definitions is not None and not isinstance(obj, (types.FunctionType, type)):
        key = definitions.key_of_sent(obj)
        if key is not None:
            return _rebuild.named, key
    if kind.__module__ in _OF_THIS_PROCESS:
        raise TypeError(f"a {kind.__name__} belongs to the process that made it")
    if is_plain and kind.__flags__ & (1 << 9):
        return _reduce_sentinel(obj, kind)
    if kind.__name__ in _BY_CLOUDPICKLE and kind.__module__ in _CLOUDPICKLE_MODULES:
        return reduce_by_cloudpickle(obj)
    if obj is sys.stdout or obj is sys.stderr or obj is sys.stdin:
        return getattr, (sys, next(n for n in _STREAMS if getattr(sys, n) is obj))
    return NotImplemented


# multiprocessing can send these, through a server thread; but a function that merely mentions one
# must not send it.
_OF_THIS_PROCESS: Final = frozenset({"socket", "_socket", "multiprocessing.connection"})
_STREAMS: Final = ("stdout", "stderr", "stdin")
_CLOUDPICKLE_MODULES: Final = frozenset(
    {"builtins", "collections", "typing", "_weakrefset", "weakref"}
)


def is_harmless(kind: type) -> bool:
    """Whether arguments and results may contain instances of `kind`: copies serve as well."""
    if kind in _HARMLESS:
        return True
    return kind.__name__ in _CONTENTS and kind.__module__ in _CLOUDPICKLE_MODULES


def reduce_harmless(pickler: Pickler, obj: Any) -> Any:
    reducer = _REDUCERS.get(type(obj))
    return reduce_by_cloudpickle(obj) if reducer is None else reducer(pickler, obj)


def reduce_by_cloudpickle(obj: Any) -> Any:
    import cloudpickle

    reducer = cloudpickle.Pickler._dispatch_table.get(type(obj))
    return NotImplemented if reducer is None else reducer(obj)


def _reduce_sentinel(obj: Any, kind: type) -> Any:
    """An instance that its class's module holds under a name, like `dataclasses.MISSING`."""
    module = sys.modules.get(kind.__module__)
    if module is None or not _names.importable(kind.__module__):
        return NotImplemented
    for name, value in list(vars(module).items()):
        if value is obj:
            return _rebuild.named, (kind.__module__, name)
    return NotImplemented


def _module(pickler: Pickler, module: types.ModuleType) -> Any:
    name = _names.canonical(module.__name__)
    if sys.modules.get(module.__name__) is not module:
        return NotImplemented
    where = _names.place(name, pickler.definitions)
    if where is _names.Place.NOWHERE:
        return NotImplemented
    if where is _names.Place.SHIPPED and name != _names.MAIN:
        pickler.needs.update((name, n) for n in module_names(module))
    return _rebuild.module_named, (name,)


def module_names(module: types.ModuleType) -> list[str]:
    """All names of a module that was made by hand, because it is unknown which will be used."""
    return [n for n in vars(module) if not (n.startswith("__") and n.endswith("__"))]


def _lock(pickler: Pickler, lock: Any) -> Any:
    return threading.Lock, ()


def _recursive_lock(pickler: Pickler, lock: Any) -> Any:
    return threading.RLock, ()


def _thread_local(pickler: Pickler, local: Any) -> Any:
    return threading.local, ()


def _property(pickler: Pickler, prop: property) -> Any:
    return property, (prop.fget, prop.fset, prop.fdel, prop.__doc__)


def _method_wrapper(pickler: Pickler, method: Any) -> Any:
    return type(method), (method.__func__,)


def _mapping_proxy(pickler: Pickler, proxy: Any) -> Any:
    return types.MappingProxyType, (gc.get_referents(proxy)[0],)


def _cell(pickler: Pickler, cell: types.CellType) -> Any:
    return pickler.by_value(cell)


def _code(pickler: Pickler, code: types.CodeType) -> Any:
    return marshal.loads, (marshal.dumps(code),)


def _weak_key_dictionary(pickler: Pickler, mapping: Any) -> Any:
    return weakref.WeakKeyDictionary, (dict(mapping),)


def _weak_value_dictionary(pickler: Pickler, mapping: Any) -> Any:
    return weakref.WeakValueDictionary, (dict(mapping),)


_REDUCERS: Final[dict[type, Any]] = {
    types.ModuleType: _module,
    _LOCK: _lock,
    _RLOCK: _recursive_lock,
    threading.local: _thread_local,
    property: _property,
    staticmethod: _method_wrapper,
    classmethod: _method_wrapper,
    types.MappingProxyType: _mapping_proxy,
    types.CellType: _cell,
    types.CodeType: _code,
    weakref.WeakKeyDictionary: _weak_key_dictionary,
    weakref.WeakValueDictionary: _weak_value_dictionary,
}
_HARMLESS: Final = frozenset(
    {
        types.ModuleType,
        property,
        staticmethod,
        classmethod,
        types.MappingProxyType,
        types.CellType,
        types.CodeType,
    }
)


# --- Special cases among objects that have a name ---


def reduce_built_in_type(cls: type) -> Any:
    """An extension type whose module has it under another name than its own (3.10's
    `_thread.lock`).
    """
    for module_name in (cls.__module__, "types"):
        module = sys.modules.get(module_name)
        if module is not None and _names.importable(module_name):
            for name, value in list(vars(module).items()):
                if value is cls:
                    return _rebuild.named, (module_name, name)
    return NotImplemented


_OF_WRAPPER: Final = frozenset(
    {*functools.WRAPPER_ASSIGNMENTS, "__wrapped__", "cache_parameters", "__annotate__"}
)


def reduce_lru_cache(function: Any) -> Any:
    """A function under `functools.lru_cache`, with an empty cache."""
    parameters = function.cache_parameters()
    extra = {k: v for k, v in vars(function).items() if k not in _OF_WRAPPER}
    arguments = (function.__wrapped__, parameters["maxsize"], parameters["typed"])
    return _rebuild.lru_cache, arguments, extra or None


def reduce_plainly(obj: Any) -> Any:
    """Reduce an instance to its class and state, without its own reducer."""
    if type(obj).__module__ in ("typing", "_typing"):
        reduced = reduce_by_cloudpickle(obj)
        if reduced is not NotImplemented:
            return reduced
    state: Any = dict(getattr(obj, "__dict__", None) or {}) or None
    slots = copyreg._slotnames(type(obj))  # type: ignore[attr-defined]
    held = {name: getattr(obj, name) for name in slots if hasattr(obj, name)}
    return copyreg.__newobj__, (type(obj),), (state, held) if held else state  # type: ignore[attr-defined]
