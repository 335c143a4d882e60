# SPDX-License-Identifier: Apache-2.0
"""The program's main module: can another process import it without starting the program again, and
what does that process have then?

Both are read off its source. It can be imported if some statement at its top asks where it runs,
such as `if __name__ == "__main__"`. What is bound elsewhere at its top is there after the import.
"""

from __future__ import annotations

import ast
import functools
import os
import sys
from typing import Any, Final

# Who asks for one of these wants to know whether this is the program or a child of it.
# (`parent_process()` is None in a child, too, while that imports the main module.)
_NAME: Final = "__name__"
_TEXTS: Final = frozenset({"__main__", "MainProcess"})
_SCOPES: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_INNER: Final = (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def names_after_import() -> frozenset[str] | None:
    """The names that a child has of the main module by importing it; None: it must not.

    `__main__.py` of a package, a folder or an archive is not imported by others, as in the standard
    library.
    """
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        if spec.name == "__main__" or spec.name.endswith(".__main__"):
            return None
        try:
            return _read(spec.loader.get_source(spec.name) or "")
        except Exception:  # of a loader that others have written
            return None
    file = getattr(main, "__file__", None)
    if os.path.splitext(os.path.basename(file or ""))[0] == "ipython":
        return None  # by name, there too
    try:
        facts = os.stat(file or "")
        return _read_file(file or "", facts.st_mtime_ns, facts.st_size)
    except (OSError, EOFError, TypeError, ValueError, SyntaxError):
        return None


@functools.lru_cache(maxsize=4)
def _read_file(file: str, modified: int, size: int) -> frozenset[str] | None:
    with open(file, "rb") as source:
        content = source.read()
    if file.endswith(".pyc"):
        from shoal import _compiled_main

        return _compiled_main.read(content, _NAME, _TEXTS)
    return _read(content)


@functools.lru_cache(maxsize=4)
def _read(source: str | bytes) -> frozenset[str] | None:
    reader = _Reader()
    for statement in ast.parse(source).body:
        reader.visit(statement)
    return frozenset(reader.bound) if reader.is_guarded else None


class _Reader(ast.NodeVisitor):
    """Reads what runs when the module is imported."""

    def __init__(self) -> None:
        self.is_guarded = False
        self.bound: set[str] = set()
        self._asking = {_NAME}  # and names of the module that hold an answer

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
            or (isinstance(part, ast.Attribute) and part.attr == _NAME)
            or (isinstance(part, ast.Constant) and part.value in _TEXTS)
            for part in ast.walk(node)
        )
