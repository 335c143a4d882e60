# SPDX-License-Identifier: Apache-2.0
"""How the drop-in's classes become subclasses of the standard library's without importing them.

Only code that has imported `multiprocessing.pool` can ask `isinstance(x,
multiprocessing.pool.Pool)`. So shoal's Pool gets that base class when the program imports
`multiprocessing.pool`. Importing it only for this (it imports queue, tempfile, shutil, random and
traceback) would take longer than everything else that a first pool does. Results, queues and locks
work the same way.

Programs also use submodules that the standard library happens to have imported: after a
`multiprocessing.Queue()` they catch `multiprocessing.queues.Empty` without importing that module.
`multiprocessing.__getattr__` imports such a submodule when a program accesses it.
"""

from __future__ import annotations

import sys

from shoal._runtime import _import_hook

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from shoal._pool._engine import Engine

# States of a pool, as `multiprocessing.pool` names them.
INIT, RUN, CLOSE, TERMINATE = "INIT", "RUN", "CLOSE", "TERMINATE"
# Submodules that importing the stock classes of pools, queues and locks would also import.
_BROUGHT = frozenset({"connection", "pool", "queues", "resource_tracker", "synchronize", "util"})


def follow(module: str, *pairs: tuple[type, str]) -> None:
    """Make each class a subclass of the class of that name in the stock module: now, if the module
    has been imported, otherwise when it is imported.
    """
    sys.modules["multiprocessing"].__dict__.setdefault("__getattr__", _submodule)
    _import_hook.follow(module, *pairs)


def _submodule(name: str) -> Any:
    """`multiprocessing.__getattr__`"""
    if name not in _BROUGHT:
        raise AttributeError(f"module 'multiprocessing' has no attribute {name!r}")
    __import__(f"multiprocessing.{name}")
    return sys.modules[f"multiprocessing.{name}"]


def repr_of(module: str, name: str) -> Callable[[Any], str]:
    """A `__repr__` that imports the stock class and calls its `__repr__`."""

    def __repr__(self: Any) -> str:
        __import__(module)
        return str(getattr(sys.modules[module], name).__repr__(self))

    return __repr__


def state_of(engine: Engine) -> str:
    """The state of an engine's pool, as one of the standard library's constants."""
    if not engine.closed:
        return RUN
    return TERMINATE if engine._agent.ended else CLOSE


def is_of_pool(value: object, name: str) -> bool:
    """Whether the class of `value` is the class of that name in `multiprocessing.pool` itself."""
    cls = type(value)
    return cls.__name__ == name and cls.__module__ == "multiprocessing.pool"
