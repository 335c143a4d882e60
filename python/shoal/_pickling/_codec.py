# SPDX-License-Identifier: Apache-2.0
"""Connects this package to the C++ codec, which uses it for objects that it cannot encode itself.

Module state: none here; the core holds the two functions once `connect_pickler` was called.
"""

from __future__ import annotations

from shoal._pickling import _pickler
from shoal._runtime._native import core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def dumps(obj: Any) -> tuple[bytes, Any]:
    """Pickle an object for the codec, with the definitions of the pool that this thread encodes
    for, if any.

    `hooks.by_name`: an object that the standard library cannot pickle is an error (for results of
    the drop-in).
    """
    hooks = core.encoding_hooks()
    if hooks is None:
        return _pickler.dumps(obj)
    return _pickler.dumps(obj, hooks.definitions, hooks.by_name)


def connect_pickler() -> None:
    """Make the codec use shoal's pickling. Needed once per process, and again after exec."""
    core.set_pickler(dumps, _pickler.loads)


connect_pickler()
