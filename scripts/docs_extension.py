# SPDX-License-Identifier: Apache-2.0
"""Describes the package to the generator of the documentation's site (`scripts/docs`), which does
not run it.

1. Public classes have methods that are written in C. Their signatures are taken from the stubs of
   the core, their docstrings from the core itself.
2. Docstrings are written to be read in a terminal. Three of their forms would mean something else
   in Markdown and are converted: an example (`>>> `) would be a quotation, a heading underlined
   with dashes a title, and the lines below it (`name: what it is`) one paragraph.
"""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Iterator
from typing import Any

import griffe
from shoal import _core, errors

HEADING = re.compile(r"^(\w[\w ]*)\n-+\n")
PARAMETER = re.compile(r"^(\w+(?:, \w+)*): ", re.MULTILINE)


class Extension(griffe.Extension):
    """Found by its base class."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        for name in errors._MAKERS:  # made on first access; type checkers see a stub
            made = pkg["errors"][name]
            made.docstring = griffe.Docstring(inspect.getdoc(getattr(errors, name)), parent=made)
        for cls in list(classes(pkg)):
            show_new(cls)
            for base in cls.bases:
                if str(base).startswith("core."):
                    add_members(cls, str(base).removeprefix("core."), pkg)
        for described in objects(pkg):
            if described.docstring is not None:
                described.docstring.value = to_markdown(described.docstring.value)


def objects(parent: Any) -> Iterator[Any]:
    yield parent
    for member in parent.members.values():
        if not member.is_alias:
            yield from objects(member)


def classes(pkg: griffe.Module) -> Iterator[griffe.Class]:
    return (found for found in objects(pkg) if found.is_class and "_core" not in found.path)


def add_members(cls: griffe.Class, name: str, pkg: griffe.Module) -> None:
    """The public members of the C type `name` that `cls` does not override."""
    compiled = getattr(_core, name)
    for member in pkg["_core"][name].members.values():
        text = getattr(compiled, member.name).__doc__
        if member.name.startswith("_") or member.name in cls.members or not text:
            continue
        # The first line may repeat the signature, for `help()`.
        rest = text.partition("\n\n")[2] if text.startswith(f"{member.name}(") else text
        if rest and member.name != "handle":  # used only by the package itself
            added = copy.copy(member)
            added.docstring = griffe.Docstring(rest.replace("\n", " "), parent=added)
            cls.set_member(member.name, added)


def show_new(cls: griffe.Class) -> None:
    """The constructor's parameters, if `__new__` defines them."""
    made = cls.members.get("__new__")
    if made is not None and "__init__" not in cls.members and len(made.parameters) > 1:
        init = copy.copy(made)
        init.name, init.returns = "__init__", None
        cls.set_member("__init__", init)


def to_markdown(text: str) -> str:
    """The docstring with examples fenced and parameters as a list."""
    return "\n\n".join(_paragraph(part) for part in text.split("\n\n"))


def _paragraph(text: str) -> str:
    if text.startswith(">>> "):
        return f"```pycon\n{text}\n```"
    headed = HEADING.match(text)
    if headed:
        return f"**{headed[1]}**\n\n" + PARAMETER.sub(r"- `\1`: ", text[headed.end() :])
    if PARAMETER.match(text):
        return PARAMETER.sub(r"- `\1`: ", text)
    return text
