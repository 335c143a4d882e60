# SPDX-License-Identifier: Apache-2.0
"""The arguments of a task, as error messages show them.

The codec describes a unit by an expression (`src/codec/summary.hpp`): plain values as themselves,
arrays by shape and dtype, anything else as `Type(...)`. This module extracts the part that belongs
to one call. Nothing is unpickled, and nothing is evaluated.
"""

from __future__ import annotations

import ast

from shoal._runtime._native import core

LONGEST = 200  # characters


def shown(text: str, flags: int, item: int) -> str:
    """The arguments of item `item` of the unit that `text` describes, without parentheses.

    >>> shown("((1, 'x'), {'k': Point(...)})", core.BATCH_CALL_UNITS, 0)
    "1, 'x', k=Point(...)"
    >>> shown("([1], [2])", core.BATCH_CHUNK_UNITS, 1)
    '[2]'
    """
    try:
        value = ast.parse(text, mode="eval").body
        return _cut(_arguments(value, flags, item))
    except (SyntaxError, ValueError, IndexError, MemoryError, RecursionError):
        return _cut(text if not flags & core.BATCH_CHUNK_UNITS else f"item {item} of {text}")


def _arguments(value: ast.expr, flags: int, item: int) -> str:
    own = 1 if flags & core.BATCH_OWN_FUNCTION else 0  # the function is the first element
    if flags & core.BATCH_CALL_UNITS:
        args, *kwargs = _elements(value)[own:]
        return ", ".join(_positional(args) + [text for each in kwargs for text in _named(each)])
    if flags & core.BATCH_CHUNK_UNITS:
        value = _elements(value)[own + item]
        if isinstance(value, ast.Constant) and value.value is ...:
            raise ValueError("the description ends before this item")
    elif own:
        value = _elements(value)[1]
    if flags & core.BATCH_STAR_ITEMS and isinstance(value, (ast.Tuple, ast.List)):
        return ", ".join(_positional(value))
    return ast.unparse(value)


def _elements(value: ast.expr) -> list[ast.expr]:
    if not isinstance(value, (ast.Tuple, ast.List)):
        raise ValueError("not a sequence")
    return value.elts


def _positional(value: ast.expr) -> list[str]:
    return [ast.unparse(each) for each in _elements(value)]


def _named(value: ast.expr) -> list[str]:
    if not isinstance(value, ast.Dict):
        return [f"**{ast.unparse(value)}"]
    return [f"{_name(key)}={ast.unparse(each)}" for key, each in zip(value.keys, value.values)]


def _name(key: ast.expr | None) -> str:
    return str(key.value) if isinstance(key, ast.Constant) else "..."


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
