# SPDX-License-Identifier: Apache-2.0
"""The C++ codec's way of pickling what it does not know itself, connected to this package.

Module state: none here; the core has the two functions, once `connect_pickler` was called.
"""

from __future__ import annotations

from shoal._pickling import _pickler
from shoal._runtime._native import core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def dumps(obj: Any) -> tuple[bytes, Any]:
    """The codec's way of pickling: for the pool that encodes in this thread, if it is one.

    `hooks.by_name`: what the standard library cannot pickle is an error (results of the drop-in).
    """
    hooks = core.encoding_hooks()
    if hooks is None:
        return _pickler.dumps(obj)
    return _pickler.dumps(obj, hooks.definitions, hooks.by_name)


def connect_pickler() -> None:
    """Make the codec use shoal's pickling; once per process, again after exec."""
    core.set_pickler(dumps, _pickler.loads)


connect_pickler()
