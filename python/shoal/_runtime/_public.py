# SPDX-License-Identifier: Apache-2.0
"""Showing public classes and functions under the name by which users import them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    Thing = TypeVar("Thing")


def public(thing: Thing) -> Thing:
    """A decorator for what `shoal.__all__` names: its reprs and pickles say `shoal.Pool`, not in
    which private module it is defined.

    Subclasses are not affected. As for other packages that do this (numpy, trio), inspect.getsource
    finds the source of the methods, but not that of the class.
    """
    thing.__module__ = "shoal"
    return thing
