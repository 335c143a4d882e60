# SPDX-License-Identifier: Apache-2.0
"""Checks that python/shoal/_core.pyi has exactly the names that the extension has.

Run with an interpreter for which the extension is built. Names are compared for the module and,
class by class, for the attributes that a class itself defines.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator

from sources import ROOT, Finding, finish

STUB = ROOT / "python/shoal/_core.pyi"
# Attributes that every heap type or nanobind type has; naming them in a stub is optional.
COMMON = set(dir(object)) | set(dir(type("empty", (), {}))) | {"__signature__", "__nb_signature__"}
COMMON |= {"__buffer__", "__release_buffer__"}  # from CPython 3.12 on
OPTIONAL = COMMON | {"__file__", "__loader__", "__spec__", "__package__", "__name__"}


def declared(body: list[ast.stmt]) -> dict[str, tuple[int, ast.stmt]]:
    names: dict[str, tuple[int, ast.stmt]] = {}
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.setdefault(node.name, (node.lineno, node))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names[node.target.id] = (node.lineno, node)
        elif isinstance(node, ast.Assign):
            names.update({t.id: (node.lineno, node) for t in node.targets if type(t) is ast.Name})
    return names


def compare(stub: list[ast.stmt], real: object, where: str, line: int) -> Iterator[Finding]:
    said = declared(stub)
    private = {n for n in said if n.startswith("_") and not n.startswith("__")}
    has = set(vars(real))  # type: ignore[call-overload]
    for name in sorted(has - set(said) - OPTIONAL):
        yield STUB, line, f"{where}{name} is in the extension, not in the stub"
    for name in sorted(set(said) - has - OPTIONAL - private):
        yield STUB, said[name][0], f"{where}{name} is in the stub, not in the extension"
    for name in sorted(set(said) & has):
        at, node = said[name]
        if isinstance(node, ast.ClassDef) and isinstance(vars(real)[name], type):  # type: ignore[call-overload]
            yield from compare(node.body, vars(real)[name], f"{where}{name}.", at)


def main() -> None:
    core = importlib.import_module("shoal._core")
    tree = ast.parse(STUB.read_text(encoding="utf-8"))
    finish("stubs", compare(tree.body, core, "", 1))


if __name__ == "__main__":
    main()
