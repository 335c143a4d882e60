# SPDX-License-Identifier: Apache-2.0
"""Gives public classes and functions the module name under which users import them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    Thing = TypeVar("Thing")


def public(thing: Thing) -> Thing:
    """A decorator for the objects in `shoal.__all__`: their reprs and pickles say `shoal.Pool`, for
    example, instead of the private module that defines them.

    Subclasses are not affected. As with other packages that do this (numpy, trio),
    inspect.getsource finds the source of the methods, but not that of the class.
    """
    thing.__module__ = "shoal"
    return thing
