# SPDX-License-Identifier: Apache-2.0
"""Source of a main module: does its top ask where it runs, and what does an import of it bind?"""

from __future__ import annotations

import ast

from shoal._main_module import NAME, TEXTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

_SCOPES: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_INNER: Final = (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def names_after_import(source: str | bytes) -> frozenset[str] | None:
    """What the module's import binds; None: nothing in it asks, so it must not be imported."""
    reader = _Reader()
    for statement in ast.parse(source).body:
        reader.visit(statement)
    return frozenset(reader.bound) if reader.is_guarded else None


class _Reader(ast.NodeVisitor):
    """Reads what runs when the module is imported."""

    def __init__(self) -> None:
        self.is_guarded = False
        self.bound: set[str] = set()
        self._asking = {NAME}  # and names of the module that hold an answer

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, _SCOPES):
            self.bound.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            self.bound.update(a.asname or a.name.partition(".")[0] for a in node.names)
        elif isinstance(node, ast.Name):
            if isinstance(node.ctx, ast.Store):
                self.bound.add(node.id)
        elif not isinstance(node, _INNER):
            if isinstance(node, ast.Assign) and self._asks(node.value):
                targets = (t.id for t in node.targets if isinstance(t, ast.Name))
                self._asking.update(targets)
            for name in ("name", "rest"):  # of patterns
                if isinstance(getattr(node, name, None), str):
                    self.bound.add(getattr(node, name))
            for part in self._parts_for_others(node):
                self.visit(part)

    def _parts_for_others(self, node: ast.AST) -> list[ast.AST]:
        """Without those that only the program runs."""
        question: Any = getattr(node, "test", getattr(node, "subject", None))
        if isinstance(node, ast.BoolOp):
            question = node
        if question is None or not self._asks(question):
            return list(ast.iter_child_nodes(node))
        self.is_guarded = True
        if isinstance(node, ast.If) and isinstance(question, ast.Compare):
            if isinstance(question.ops[0], (ast.Eq, ast.In, ast.Is)):
                return list(node.orelse)
            return list(node.body)
        return []

    def _asks(self, node: ast.AST) -> bool:
        return any(
            (isinstance(part, ast.Name) and part.id in self._asking)
            or (isinstance(part, ast.Attribute) and part.attr == NAME)
            or (isinstance(part, ast.Constant) and part.value in TEXTS)
            for part in ast.walk(node)
        )
