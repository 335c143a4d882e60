# SPDX-License-Identifier: Apache-2.0
"""Describes classes as recipes: the sending half of `_load_class.py`.

A recipe is ("class", token, kind, description): kind is "plain", "enum" or "namedtuple", and
description is a dictionary of references, including the part of the namespace that can be given
immediately.

A *reference* is a tuple that `Loader.resolve` understands:

    ("o", object)                the object itself: an atom, or pickled by an importable name
    ("n", node)                  a node before this one
    ("m", module, qualname)      a definition that an earlier log entry has sent
    ("static", ref) ("class", ref) ("property", getter, setter, deleter, doc)

Atoms, functions, properties and nested classes of the namespace are in the recipe. The rest, mainly
instances, follows as parts, because it may refer to the class itself. The present state of the
class is sent, so users' hooks (`__init_subclass__`, `__set_name__`, metaclass code) do not run
again.
"""

from __future__ import annotations

import sys
from collections import namedtuple
from enum import Enum
from types import FunctionType, GetSetDescriptorType, MemberDescriptorType

from shoal._pickling import _names, _tokens
from shoal._pickling._failures import lasting_failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    from shoal._pickling._send_graph import Graph

_GIVEN: Final = frozenset({"__dict__", "__weakref__", "_abc_impl", "__classcell__"})
# How 3.14 evaluates annotations lazily; the evaluated annotations are sent instead.
_ANNOTATE: Final = frozenset(
    {"__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__"}
)
# Attributes that the metaclass computes from the namespace, and that must be replaced afterwards.
_COMPUTED: Final = frozenset({"__abstractmethods__", "__parameters__", "__orig_bases__"})
_ENUM_MADE: Final = frozenset(
    {
        "_member_names_",
        "_member_map_",
        "_value2member_map_",
        "_unhashable_values_",
        "_hashable_values_",
        "_unhashable_values_map_",
        "_sort_order_",
        "_flag_mask_",
        "_singles_mask_",
        "_all_bits_",
        "_inverted_",
        "_boundary_",
        "_member_type_",
        "_value_repr_",
        "__new__",
    }
)
_MEMBER_MADE: Final = frozenset(
    {
        "_value_",
        "_name_",
        "__objclass__",
        "_sort_order_",
        "_inverted_",
        "name",
        "value",
        "__dict__",
    }
)
_TEMPLATE: Final = namedtuple("_TEMPLATE", "field")  # has what namedtuple puts into every class
_RAW: Final[dict[type, Any]] = {
    int: int.__int__,
    str: str.__str__,
    float: float.__float__,
    bytes: lambda member: bytes.__getitem__(member, slice(None)),
    tuple: lambda member: tuple.__getitem__(member, slice(None)),
}


def add_class(graph: Graph, cls: type) -> int:
    """Add a node for `cls`, after the nodes of its metaclass, bases and attributes."""
    late_values: dict[str, Any] = {}
    if issubclass(cls, Enum):
        kind, description = "enum", _describe_enum(cls, late_values)
    elif cls.__bases__ == (tuple,) and hasattr(cls, "_field_defaults"):
        kind, description = "namedtuple", {"fields": cls._fields}  # type: ignore[attr-defined]
        description["defaults"] = len(cls._field_defaults)
    else:
        kind, description = "plain", {}
    description["meta"] = class_reference(graph, type(cls))
    description["bases"] = tuple(class_reference(graph, base) for base in cls.__bases__)
    description["name"] = cls.__name__
    description["qualname"] = cls.__qualname__
    description["names"] = frozenset(cls.__dict__)
    late: dict[str, Any] = {}
    description["namespace"] = _namespace(graph, cls, kind, late)
    if graph.has(cls):  # an attribute refers to the class, so the class was added meanwhile
        return graph.node(cls)
    index = graph.add(cls, ("class", _tokens.token_of(cls), kind, description))
    for name, value in late.items():
        graph.later("attribute", index, (name, value))
    _add_rest(graph, cls, index)
    if late_values:
        graph.later("values", index, late_values)
    return index


def class_reference(graph: Graph, cls: type) -> tuple[Any, ...]:
    located = _names.locate(cls)
    if located is None:
        return ("n", graph.node(cls)) if cls.__flags__ & (1 << 9) else ("o", cls)
    definitions = graph.pickler.definitions
    where = _names.place(located[0], definitions)
    if where is _names.Place.THERE:
        return ("o", cls)
    if where is _names.Place.SHIPPED:
        key = _names.key_of(located)
        graph.pickler.needs.add(key)
        if not graph.pickler.in_round or (definitions is not None and definitions.has_sent(key)):
            return ("m", *located)
    return ("n", graph.node(cls))


def _namespace(
    graph: Graph, cls: type, kind: str, late: dict[str, Any]
) -> list[tuple[str, tuple[Any, ...]]]:
    """The attributes that can be in the recipe; the others are put into `late`."""
    namespace = []
    for name, value in _own_attributes(cls, kind):
        reference = None if name in _COMPUTED else _attribute(graph, cls, value)
        if reference is None:
            late[name] = value
        else:
            namespace.append((name, reference))
    return namespace


def _own_attributes(cls: type, kind: str) -> list[tuple[str, Any]]:
    skip = _GIVEN | _ANNOTATE
    if kind == "enum":
        skip |= _ENUM_MADE | frozenset(cls.__members__)  # type: ignore[attr-defined]
    elif kind == "namedtuple":
        skip |= {"__slots__", "__new__", "_field_defaults", *cls._fields}  # type: ignore[attr-defined]
    return [
        (name, value)
        for name, value in list(cls.__dict__.items())
        if name not in skip
        and not _is_slot(cls, value)
        and not (kind == "namedtuple" and _is_of_template(name, value))
    ]


def _is_slot(cls: type, value: Any) -> bool:
    kinds = (MemberDescriptorType, GetSetDescriptorType)
    return isinstance(value, kinds) and value.__objclass__ is cls


def _is_of_template(name: str, value: Any) -> bool:
    """Whether an attribute of a named tuple was put there by `namedtuple` itself."""
    value = getattr(value, "__func__", value)
    usual = _TEMPLATE.__dict__.get(name)
    usual = getattr(usual, "__func__", usual)
    return isinstance(value, FunctionType) and (
        value.__code__ is getattr(usual, "__code__", None) or name == "__new__"
    )


def _attribute(graph: Graph, cls: type, value: Any) -> tuple[Any, ...] | None:
    """A reference to an attribute's value, or None if it has to follow later."""
    kind = type(value)
    if _names.is_atom(value):
        return ("o", value)
    if kind is list and all(type(item) is str for item in value):
        return ("o", list(value))  # __slots__, __match_args__
    if kind is FunctionType:
        located = _names.locate(value)
        definitions = graph.pickler.definitions
        if located and _names.place(located[0], definitions) is _names.Place.THERE:
            return ("o", value) if located[0] != _names.MAIN else None
        return ("n", graph.node(value))
    if kind is staticmethod or kind is classmethod:
        inner = _attribute(graph, cls, value.__func__)
        return inner and ("static" if kind is staticmethod else "class", inner)
    if kind is property:
        parts = [_attribute(graph, cls, f) for f in (value.fget, value.fset, value.fdel)]
        doc = value.__doc__ if _names.is_atom(value.__doc__) else None
        return None if None in parts else ("property", *parts, doc)
    if isinstance(value, type) and value.__qualname__.startswith(cls.__qualname__ + "."):
        return class_reference(graph, value)
    return None


def _add_rest(graph: Graph, cls: type, index: int) -> None:
    """Add parts for what is not in the namespace, or must replace what was computed from it."""
    annotations: dict[str, Any] = {}

    def read_annotations() -> None:
        annotations.update(vars(cls).get("__annotations__") or {})
        if not annotations and sys.version_info >= (3, 14):
            annotations.update(cls.__annotations__)

    # 3.14 evaluates annotations here, and they may contain unbound names: then none are sent.
    lasting_failure(read_annotations)
    if annotations:
        graph.later("annotations", index, annotations)
    if "_abc_impl" in cls.__dict__:
        import _abc  # type: ignore[import-not-found]

        for reference in _abc._get_dump(cls)[0]:
            subclass = reference()
            if subclass is not None:
                graph.later("virtual", index, subclass)
    if hasattr(cls, "_field_defaults") and cls.__bases__ == (tuple,) and cls._field_defaults:
        graph.later("attribute", index, ("_field_defaults", dict(cls._field_defaults)))
    if issubclass(cls, Enum):
        for name, member in cls.__members__.items():
            extra = {k: v for k, v in vars(member).items() if k not in _MEMBER_MADE}
            if extra and member.name == name:
                graph.later("attribute", index, (f"member {name}", extra))


def _describe_enum(cls: Any, late: dict[str, Any]) -> dict[str, Any]:
    """The members by their values; those that are not atoms go into `late`."""
    data_type = getattr(cls, "_member_type_", object)
    raw_of = _RAW.get(data_type)
    members = []
    for name, member in cls.__members__.items():
        value = member._value_
        raw = raw_of(member) if raw_of is not None else None
        is_early = _names.is_atom(value) and _names.is_atom(raw)
        if not is_early:
            late[name] = value
        # Two names with the same late value must stay one member, so the member's own name takes
        # the place of the value.
        members.append((name, value if is_early else ("", member.name), raw if is_early else None))
    return {
        "members": members,
        "raw": data_type if raw_of is not None else None,
        "boundary": getattr(cls, "_boundary_", None),
    }
