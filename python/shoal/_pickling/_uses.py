# SPDX-License-Identifier: Apache-2.0
"""Finds the shipped names that an object needs, by inspecting it, without pickling.

The result may be incomplete: names that it misses (functions deep inside a container, for example)
are found by the pickler later. It determines the order of definitions, and which names to watch for
rebinding.
"""

from __future__ import annotations

import copyreg
import functools
import sys
from types import CellType, FunctionType, ModuleType

from shoal._pickling import _names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

_CONTAINERS: Final = (list, tuple, set, frozenset)
_MANY: Final = 256  # the most items of one container that are inspected
_BUDGET: Final = 10_000  # the most objects that are inspected in all


def uses_of(value: Any, definitions: _names.Baseline) -> dict[_names.Key, None]:
    """The keys of the shipped names that `value` needs, in the order in which they are found."""
    found: dict[_names.Key, None] = {}
    seen: set[int] = set()
    stack: list[tuple[Any, int]] = [(value, 0)]
    kinds = (FunctionType, type)
    own_key = shipped_key(value, definitions) if isinstance(value, kinds) else None
    while stack:
        obj, depth = stack.pop()
        if id(obj) in seen or depth > 8 or len(seen) > _BUDGET or _names.is_atom(obj, 0):
            continue
        seen.add(id(obj))
        if obj is not value and isinstance(obj, kinds):
            key = shipped_key(obj, definitions)
            if key is not None and key != own_key:
                found[key] = None
                continue
        _look(obj, definitions, found)
        stack.extend((part, depth + 1) for part in reversed(_parts_of(obj)))
    return found


def shipped_key(obj: Any, definitions: _names.Baseline) -> _names.Key | None:
    """The key of a function or class that definitions send by name."""
    located = _names.locate(obj)
    if located is None:
        return None
    shipped = _names.place(located[0], definitions) is _names.Place.SHIPPED
    return _names.key_of(located) if shipped else None


def _look(obj: Any, definitions: _names.Baseline, found: dict[_names.Key, None]) -> None:
    """Add what `obj` itself uses by name."""
    if isinstance(obj, FunctionType):
        variables = obj.__globals__
        name = variables.get("__name__")
        if not isinstance(name, str):
            return
        name = _names.canonical(name)
        module = sys.modules.get(name)
        if module is None or vars(module) is not variables:
            return
        if _names.place(name, definitions) is _names.Place.SHIPPED:
            for used in _names.used_names(obj.__code__, variables):
                found[(name, used)] = None
    elif isinstance(obj, ModuleType):
        name = _names.canonical(obj.__name__)
        by_hand = name != _names.MAIN and sys.modules.get(obj.__name__) is obj
        if by_hand and _names.place(name, definitions) is _names.Place.SHIPPED:
            from shoal._pickling._reducers import module_names

            found.update({(name, n): None for n in module_names(obj)})
    elif not isinstance(obj, type):
        key = shipped_key(type(obj), definitions)
        if key is not None:
            found[key] = None


def _parts_of(obj: Any) -> list[Any]:
    if isinstance(obj, FunctionType):
        parts = [*(obj.__closure__ or ()), *(obj.__defaults__ or ())]
        return [*parts, *(obj.__kwdefaults__ or {}).values(), *vars(obj).values()]
    if isinstance(obj, type):
        if not obj.__flags__ & (1 << 9) or _is_elsewhere(obj):
            return []
        return [type(obj), *obj.__bases__, *obj.__dict__.values()]
    if isinstance(obj, CellType):
        return [_names.cell_content(obj)]
    if isinstance(obj, (staticmethod, classmethod)):
        return [obj.__func__]
    if isinstance(obj, property):
        return [obj.fget, obj.fset, obj.fdel]
    if isinstance(obj, functools.partial):
        return [obj.func, obj.args, obj.keywords]
    if isinstance(obj, functools._lru_cache_wrapper):
        return [obj.__wrapped__]
    if type(obj) is dict:
        return [x for item in list(obj.items())[:_MANY] for x in item]
    if type(obj) in _CONTAINERS:
        return list(obj)[:_MANY]
    return _state_of(obj) if type(obj).__flags__ & (1 << 9) else []


def _state_of(obj: Any) -> list[Any]:
    """The values in an instance's dictionary and slots."""
    state = list(getattr(obj, "__dict__", {}).values())
    slots = copyreg._slotnames(type(obj))  # type: ignore[attr-defined]
    state += [getattr(obj, name, None) for name in slots]
    return state[:_MANY]


def _is_elsewhere(cls: type) -> bool:
    located = _names.locate(cls)
    return located is not None and _names.importable(located[0]) and located[0] != _names.MAIN
