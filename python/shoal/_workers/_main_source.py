# SPDX-License-Identifier: Apache-2.0
"""Reads the source of a main module: whether it has a guard, and which names importing it binds.

Uses the node classes of the built-in module `_ast`. Importing `ast`, which wraps them, would take
longer than reading most main modules.
"""

from __future__ import annotations

import _ast
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Final

_SCOPES: Final = (_ast.FunctionDef, _ast.AsyncFunctionDef, _ast.ClassDef)
_INNER: Final = (_ast.Lambda, _ast.ListComp, _ast.SetComp, _ast.DictComp, _ast.GeneratorExp)


def read(source: str | bytes, name: str, texts: frozenset[str]) -> frozenset[str] | None:
    """The names that importing the module binds; None if it has no guard, so that it must not be
    imported. A guard is a test that contains the variable `name` or one of the constants `texts`.
    """
    reader = _Reader(name, texts)
    module: Any = compile(source, "<main>", "exec", _ast.PyCF_ONLY_AST, dont_inherit=True)
    for statement in module.body:
        reader.visit(statement)
    return frozenset(reader.bound) if reader.is_guarded else None


class _Reader:
    """Visits the statements that run when the module is imported."""

    def __init__(self, name: str, texts: frozenset[str]) -> None:
        self._name = name
        self._texts = texts
        self.is_guarded = False
        self.bound: set[str] = set()
        self._asking = {name}  # grows by variables that hold the result of such a test

    def visit(self, node: _ast.AST) -> None:
        if isinstance(node, _SCOPES):
            self.bound.add(node.name)
        elif isinstance(node, (_ast.Import, _ast.ImportFrom)):
            self.bound.update(a.asname or a.name.partition(".")[0] for a in node.names)
        elif isinstance(node, _ast.Name):
            if isinstance(node.ctx, _ast.Store):
                self.bound.add(node.id)
        elif not isinstance(node, _INNER):
            if isinstance(node, _ast.Assign) and self._asks(node.value):
                targets = (t.id for t in node.targets if isinstance(t, _ast.Name))
                self._asking.update(targets)
            for name in ("name", "rest"):  # names that match patterns bind
                if isinstance(getattr(node, name, None), str):
                    self.bound.add(getattr(node, name))
            for part in self._parts_for_others(node):
                self.visit(part)

    def _parts_for_others(self, node: _ast.AST) -> list[_ast.AST]:
        """The parts of a node, without those that only the program runs."""
        question: Any = getattr(node, "test", getattr(node, "subject", None))
        if isinstance(node, _ast.BoolOp):
            question = node
        if question is None or not self._asks(question):
            return list(_children(node))
        self.is_guarded = True
        if isinstance(node, _ast.If) and isinstance(question, _ast.Compare):
            if isinstance(question.ops[0], (_ast.Eq, _ast.In, _ast.Is)):
                return list(node.orelse)
            return list(node.body)
        return []

    def _asks(self, node: _ast.AST) -> bool:
        return any(
            (isinstance(part, _ast.Name) and part.id in self._asking)
            or (isinstance(part, _ast.Attribute) and part.attr == self._name)
            or (isinstance(part, _ast.Constant) and part.value in self._texts)
            for part in _walk(node)
        )


def _children(node: _ast.AST) -> Iterator[_ast.AST]:
    for field in node._fields:
        value = getattr(node, field, None)
        for part in value if isinstance(value, list) else (value,):
            if isinstance(part, _ast.AST):
                yield part


def _walk(node: _ast.AST) -> Iterator[_ast.AST]:
    """The node and all its descendants."""
    left = deque([node])
    while left:
        node = left.popleft()
        yield node
        left.extend(_children(node))
