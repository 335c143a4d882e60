# SPDX-License-Identifier: Apache-2.0
"""A substitute for `typing.NamedTuple`: importing `typing` would take longer than the rest of
shoal's start.

Type checkers see `typing.NamedTuple`. Only what shoal uses is implemented: annotated fields,
defaults, methods, `_replace`. Unlike `collections.namedtuple`, it compiles no code per class.
"""

from __future__ import annotations

from operator import itemgetter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NamedTuple
else:

    class _Maker(type):
        """Turns each class that derives from NamedTuple into a subclass of tuple."""

        def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
            if not bases:
                return super().__new__(cls, name, bases, body)
            fields = tuple(body.get("__annotations__", ()))
            defaults = {field: body[field] for field in fields if field in body}
            made = {**_METHODS, **body, "__slots__": (), "_fields": fields, "_defaults": defaults}
            made.update((field, property(itemgetter(at))) for at, field in enumerate(fields))
            return type(name, (tuple,), made)

    def _new(cls: type, *values: Any, **named: Any) -> Any:
        fields = cls._fields
        if named or len(values) != len(fields):
            rest = {**cls._defaults, **named}
            missing = [field for field in fields[len(values) :] if field not in rest]
            if missing or len(values) > len(fields) or not set(named) <= set(fields[len(values) :]):
                raise TypeError(f"{cls.__name__} takes {', '.join(fields)}")
            values = (*values, *(rest[field] for field in fields[len(values) :]))
        return tuple.__new__(cls, values)

    def _replace(self: Any, **named: Any) -> Any:
        return type(self)(**{**dict(zip(self._fields, self)), **named})

    def _getnewargs(self: Any) -> tuple[Any, ...]:
        return tuple(self)

    def _repr(self: Any) -> str:
        shown = ", ".join(f"{field}={value!r}" for field, value in zip(self._fields, self))
        return f"{type(self).__name__}({shown})"

    _METHODS = {
        "__new__": _new,
        "__getnewargs__": _getnewargs,
        "__repr__": _repr,
        "_replace": _replace,
    }

    class NamedTuple(metaclass=_Maker):
        pass


__all__ = ["NamedTuple"]
