# SPDX-License-Identifier: Apache-2.0
"""Makes classes from recipes: the receiving half of `_send_class.py`.

A class is made with its namespace, by the most derived metaclass that is not itself shipped.
Meanwhile the `__init_subclass__` of shipped classes is disabled, because its effects are part of
the state that is sent. The `__init_subclass__` of a library runs, because the library's own state
is not sent. If that raises (for example because it needs the keywords of the class statement), the
class is made without it.

The thread that runs tasks applies entries, between tasks.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager

from shoal._pickling import _names, _tokens

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shoal._pickling._load_graph import Loader


def create(loader: Loader, kind: str, description: dict[str, Any]) -> type:
    bases = tuple(loader.resolve(base) for base in description["bases"])
    namespace = {name: loader.resolve(ref) for name, ref in description["namespace"]}
    if kind == "namedtuple":
        return _create_named_tuple(description, namespace)
    meta = loader.resolve(description["meta"])
    if kind == "enum":
        made = _create_enum(meta, bases, description, namespace)
    else:
        namespace["__qualname__"] = description["qualname"]
        if "__orig_bases__" in description["names"]:
            namespace["__orig_bases__"] = ()  # typing.Generic needs a value; the real one follows
        made = _create_plain(meta, description["name"], bases, namespace)
    return made


def fill(target: type, kind: str, value: Any) -> None:
    """Apply one late part to a class."""
    if kind == "virtual":
        target.register(value)  # type: ignore[attr-defined]
        return
    if kind == "values":
        _fill_values(target, value)
        return
    name, content = value
    if name.startswith("member "):
        vars(target._member_map_[name[7:]]).update(content)  # type: ignore[attr-defined]
        return
    if name == "_field_defaults":
        fields = target._fields  # type: ignore[attr-defined]
        defaults = tuple(content[field] for field in fields if field in content)
        target.__new__.__defaults__ = defaults
    # The metaclass's own __setattr__ is a user's hook, or an Enum's refusal.
    type.__setattr__(target, name, content)


def _is_shipped(cls: type) -> bool:
    return cls.__module__ == _names.MAIN or _tokens.tokens.get(cls) is not None


@contextmanager
def _without_hooks(bases: tuple[type, ...], all_of_them: bool) -> Iterator[None]:
    """Disable `__init_subclass__` of the bases in the block."""
    saved: list[tuple[type, Any]] = []
    for cls in {c: None for base in bases for c in base.__mro__}:
        hook = cls.__dict__.get("__init_subclass__")
        if hook is None or cls is object or not (all_of_them or _is_shipped(cls)):
            continue
        try:
            type.__setattr__(cls, "__init_subclass__", classmethod(_pass_on(cls, all_of_them)))
        except TypeError:
            continue  # built-in classes cannot be changed, and their hooks do no harm
        saved.append((cls, hook))
    try:
        yield
    finally:
        for cls, hook in saved:
            type.__setattr__(cls, "__init_subclass__", hook)


def _pass_on(owner: Any, stop: bool) -> Any:
    def __init_subclass__(cls: type, **keywords: Any) -> None:
        if not stop:
            super(owner, cls).__init_subclass__(**keywords)

    return __init_subclass__


def _create_plain(
    meta: type, name: str, bases: tuple[type, ...], namespace: dict[str, Any]
) -> type:
    maker = next(m for m in meta.__mro__ if not _is_shipped(m) and "__new__" in m.__dict__)
    make: Any = maker.__new__
    try:
        with _without_hooks(bases, all_of_them=False):
            made: type = make(meta, name, bases, dict(namespace))
            return made
    except Exception:
        with _without_hooks(bases, all_of_them=True):
            try:
                return make(meta, name, bases, dict(namespace))  # type: ignore[no-any-return]
            except Exception:
                return type.__new__(meta, name, bases, dict(namespace))


def _create_named_tuple(description: dict[str, Any], namespace: dict[str, Any]) -> type:
    defaults = [None] * description["defaults"]
    make: Any = namedtuple
    made: type = make(description["name"], description["fields"], defaults=defaults)
    made.__qualname__ = description["qualname"]
    for name, value in namespace.items():
        type.__setattr__(made, name, value)
    return made


def _fill_values(target: Any, values: dict[str, Any]) -> None:
    """Give members the values that were not available when they were made."""
    by_value = target._value2member_map_
    for name, value in values.items():
        member = target._member_map_[name]
        for known in ("_hashable_values_", "_unhashable_values_"):  # 3.12 and later
            if member._value_ in getattr(target, known, ()):
                getattr(target, known).remove(member._value_)
        by_value.pop(("", member.name), None)
        member._value_ = value
        try:
            by_value.setdefault(value, member)
            getattr(target, "_hashable_values_", []).append(value)
        except TypeError:  # not hashable
            getattr(target, "_unhashable_values_", []).append(value)
            if hasattr(target, "_unhashable_values_map_"):
                target._unhashable_values_map_.setdefault(name, []).append(value)


def _create_enum(
    meta: Any,
    bases: tuple[type, ...],
    description: dict[str, Any],
    namespace: dict[str, Any],
) -> type:
    """Make the members from their values only: the user's `__new__` and `__init__` ran already, in
    the sending process.
    """
    from enum import EnumMeta

    name, raw_type = description["name"], description["raw"]
    members = description["members"]
    upcoming = iter(members)

    def make_member(cls: type, *_value: Any) -> Any:
        _name, value, raw = next(upcoming)
        member: Any = object.__new__(cls) if raw_type is None else raw_type.__new__(cls, raw)
        member._value_ = value
        return member

    body: Any = EnumMeta.__prepare__(name, bases)
    body["__module__"] = namespace.pop("__module__", _names.MAIN)
    body["__qualname__"] = description["qualname"]
    if members:
        body["__new__"] = make_member
        body["__init__"] = lambda self, *value: None
    for member_name, value, _raw in members:
        body[member_name] = value
    options = {} if description["boundary"] is None else {"boundary": description["boundary"]}
    with _without_hooks(bases, all_of_them=True):
        made: type = EnumMeta.__new__(meta, name, bases, body, **options)
    for attribute in ("__init__", "__new_member__"):
        if attribute in made.__dict__ and attribute not in description["names"]:
            type.__delattr__(made, attribute)
    for attribute, value in namespace.items():
        type.__setattr__(made, attribute, value)
    return made
