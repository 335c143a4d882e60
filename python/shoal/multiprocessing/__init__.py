# SPDX-License-Identifier: Apache-2.0
"""The drop-in namespace: `import shoal.multiprocessing as multiprocessing`, no other change.

It has every name of the standard library's package, including its submodules. `Pool`, queues, locks
and other synchronization objects, pipes, shared values and managers are shoal's, also from every
context that `get_context` returns. Everything else is the standard library's own object, so objects
and processes of the two namespaces can be mixed freely. No class of the standard modules is
changed, except that the fork server starts warm; `shoal.install()` is for replacing more.

None of these classes is imported before the first object is made. `_alias` provides the submodules.

>>> import shoal.multiprocessing as multiprocessing
>>> with multiprocessing.get_context("fork").Pool(2) as pool:
...     pool.map(abs, [-1, 2, -3])
[1, 2, 3]

Design: docs/design/drop_in.md
"""

from __future__ import annotations

import functools
import multiprocessing as _stock
from collections.abc import Callable, Iterable
from multiprocessing import *  # noqa: F403
from multiprocessing import context as _stock_context
from types import ModuleType

from shoal._runtime import _fork_server
from shoal._runtime._import_hook import patch_now_or_later
from shoal.multiprocessing import _alias

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing.context import BaseContext
    from typing import Any

    from shoal._dropin._pool import DropInPool

__all__ = list(_stock.__all__)

_alias.serve(__name__)
patch_now_or_later("multiprocessing.forkserver", _fork_server.patch)


def _dropin(module: str, name: str) -> Any:
    import importlib

    return getattr(importlib.import_module(f"shoal._dropin.{module}"), name)


class _Factories:
    """Factories of a context for shoal's classes, with the standard library's signatures."""

    def Pool(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
    ) -> DropInPool:
        """Returns a process pool object"""
        made: DropInPool = _dropin("_pool", "DropInPool")(
            processes, initializer, initargs, maxtasksperchild, self
        )
        return made

    def Lock(self, *, on_owner_death: str = "warn") -> Any:
        """Returns a non-recursive lock object"""
        return _dropin("_sync", "Lock")(on_owner_death=on_owner_death, ctx=self)

    def RLock(self, *, on_owner_death: str = "warn") -> Any:
        """Returns a recursive lock object"""
        return _dropin("_sync", "RLock")(on_owner_death=on_owner_death, ctx=self)

    def Condition(self, lock: Any = None) -> Any:
        """Returns a condition object"""
        cls = _dropin("_sync", "Condition")
        if cls._left(lock):
            return _stock_context.BaseContext.Condition(self, lock)  # type: ignore[arg-type]
        return cls(lock, ctx=self)

    def Semaphore(self, value: int = 1) -> Any:
        """Returns a semaphore object"""
        return _dropin("_sync", "Semaphore")(value, ctx=self)

    def BoundedSemaphore(self, value: int = 1) -> Any:
        """Returns a bounded semaphore object"""
        return _dropin("_sync", "BoundedSemaphore")(value, ctx=self)

    def Event(self) -> Any:
        """Returns an event object"""
        return _dropin("_sync", "Event")(ctx=self)

    def Barrier(
        self,
        parties: int,
        action: Callable[[], object] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Returns a barrier object"""
        return _dropin("_sync", "Barrier")(parties, action, timeout, ctx=self)

    def Queue(self, maxsize: int = 0) -> Any:
        """Returns a queue object"""
        return _dropin("_queues", "Queue")(maxsize, ctx=self)

    def JoinableQueue(self, maxsize: int = 0) -> Any:
        """Returns a queue object"""
        return _dropin("_queues", "JoinableQueue")(maxsize, ctx=self)

    def SimpleQueue(self) -> Any:
        """Returns a queue object"""
        return _dropin("_queues", "SimpleQueue")(ctx=self)

    def Pipe(self, duplex: bool = True) -> tuple[Any, Any]:
        """Returns two connection object connected by a pipe"""
        ends: tuple[Any, Any] = _dropin("_pipes", "Pipe")(duplex)
        return ends

    def RawValue(self, typecode_or_type: Any, *args: Any) -> Any:
        """Returns a shared object"""
        return _dropin("_values", "RawValue")(typecode_or_type, *args)

    def RawArray(self, typecode_or_type: Any, size_or_initializer: Any) -> Any:
        """Returns a shared array"""
        return _dropin("_values", "RawArray")(typecode_or_type, size_or_initializer)

    def Value(self, typecode_or_type: Any, *args: Any, lock: Any = True) -> Any:
        """Returns a synchronized shared object"""
        return _dropin("_values", "Value")(typecode_or_type, *args, lock=lock, ctx=self)

    def Array(self, typecode_or_type: Any, size_or_initializer: Any, *, lock: Any = True) -> Any:
        """Returns a synchronized shared array"""
        make = _dropin("_values", "Array")
        return make(typecode_or_type, size_or_initializer, lock=lock, ctx=self)

    def Manager(self) -> Any:
        """Returns a manager of shared objects, which needs no process of its own"""
        manager = _dropin("_managers", "SyncManager")(ctx=self)
        manager.start()
        return manager

    def get_context(self, method: str | None = None) -> BaseContext:
        context: Any = self
        return context if method is None else get_context(method)


class ForkContext(_Factories, _stock_context.ForkContext):  # type: ignore[misc]
    """The fork context with shoal's classes."""


class SpawnContext(_Factories, _stock_context.SpawnContext):  # type: ignore[misc]
    """The spawn context with shoal's classes."""


class ForkServerContext(_Factories, _stock_context.ForkServerContext):  # type: ignore[misc]
    """The forkserver context with shoal's classes."""


_contexts: dict[str, BaseContext] = {
    "fork": ForkContext(),
    "spawn": SpawnContext(),
    "forkserver": ForkServerContext(),
}


def get_context(method: str | None = None) -> BaseContext:  # type: ignore[no-redef]
    """The context of a start method, by default the one set for the program."""
    stock = _stock.get_context(method)  # also fixes the default, and raises for an unknown method
    return _contexts.get(stock.get_start_method(), stock)


def _default(name: str) -> Any:
    """The factory `name` of the default context, as a function of this module."""
    method: Any = getattr(_Factories, name)

    @functools.wraps(method)
    def factory(*args: Any, **kwargs: Any) -> Any:
        return getattr(get_context(), name)(*args, **kwargs)

    factory.__module__, factory.__qualname__ = __name__, name
    return factory


for _name in vars(_Factories):
    if not _name.startswith("_") and _name != "get_context":
        globals()[_name] = _default(_name)
del _name


def __getattr__(name: str) -> Any:
    if not name.startswith("__"):
        found = getattr(_stock, name)
        # The submodule of this package, even if only the stock one has been imported so far.
        return _alias.own(__name__, name) if isinstance(found, ModuleType) else found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *dir(_stock)})
