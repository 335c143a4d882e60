# SPDX-License-Identifier: Apache-2.0
"""Classes of shoal's that are subclasses of the standard library's without importing them.

`isinstance(pool, multiprocessing.pool.Pool)` can be asked only by who has that class. So a class
here gets its stock base when `multiprocessing.pool` is imported, by whoever it is. That import
alone (queue, tempfile, shutil, random, traceback) takes longer than all else that a first pool
does; the same holds for queues and locks.

Programs use what the standard library happens to have imported: after `multiprocessing.Queue()`
they catch `multiprocessing.queues.Empty`. So the package imports these submodules when asked.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

# States of a pool, as `multiprocessing.pool` names them.
INIT, RUN, CLOSE, TERMINATE = "INIT", "RUN", "CLOSE", "TERMINATE"
# What the stock classes of pools, queues and locks bring with them.
_BROUGHT = frozenset({"connection", "pool", "queues", "resource_tracker", "synchronize", "util"})


def follow(module: str, *pairs: tuple[type, str]) -> None:
    """Make each class a subclass of the stock class of that name, now or when it is there."""
    from shoal import _install

    def adopt(stock: ModuleType) -> None:
        for cls, name in pairs:
            base: type | None = getattr(stock, name, None)
            if base is not None and base not in cls.__bases__:
                cls.__bases__ = (*cls.__bases__, base)

    sys.modules["multiprocessing"].__dict__.setdefault("__getattr__", _submodule)
    _install.patch_now_or_later(module, adopt)


def _submodule(name: str) -> Any:
    """`multiprocessing.__getattr__`"""
    if name not in _BROUGHT:
        raise AttributeError(f"module 'multiprocessing' has no attribute {name!r}")
    __import__(f"multiprocessing.{name}")
    return sys.modules[f"multiprocessing.{name}"]


def method(module: str, cls: str, name: str) -> Callable[..., Any]:
    """The method of that name of a stock class, which is imported when it is called."""

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        __import__(module)
        stock = getattr(sys.modules[module], cls)
        return getattr(stock, name)(self, *args, **kwargs)

    return call


def is_of_pool(value: object, name: str) -> bool:
    """Whether it is an instance of exactly the class of that name in `multiprocessing.pool`."""
    cls = type(value)
    return cls.__name__ == name and cls.__module__ == "multiprocessing.pool"
