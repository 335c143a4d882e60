# SPDX-License-Identifier: Apache-2.0
"""The drop-in namespace: `import shoal.multiprocessing as multiprocessing`, no other change.

It has every name of the standard library's package, its submodules too. What shoal has is shoal's:
`Pool`, and the `Pool` of every context that `get_context` gives. All else is the standard
library's own object, so locks, queues and processes of the two namespaces mix freely. Nothing of
the standard modules is changed: that is `shoal.install()`.

No pool machinery is imported before the first pool is made. Submodules come by `_alias`.

>>> import shoal.multiprocessing as multiprocessing
>>> with multiprocessing.get_context("fork").Pool(2) as pool:
...     pool.map(abs, [-1, 2, -3])
[1, 2, 3]
Design: docs/design/drop_in.md
"""

from __future__ import annotations

import multiprocessing as _stock
from collections.abc import Callable, Iterable
from multiprocessing import *  # noqa: F403
from multiprocessing import context as _stock_context
from typing import TYPE_CHECKING, Any

from shoal.multiprocessing import _alias

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

    from shoal._dropin import DropInPool

__all__ = list(_stock.__all__)

_alias.serve(__name__)


class _PoolMixin:
    """`Pool` for a context: shoal's, with the context's start method."""

    def Pool(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
    ) -> DropInPool:
        """Returns a process pool object"""
        from shoal._dropin import DropInPool

        context: Any = self
        return DropInPool(processes, initializer, initargs, maxtasksperchild, context)

    def get_context(self, method: str | None = None) -> BaseContext:
        context: Any = self
        return context if method is None else get_context(method)


class ForkContext(_PoolMixin, _stock_context.ForkContext):  # type: ignore[misc]
    """The fork context with shoal's Pool."""


class SpawnContext(_PoolMixin, _stock_context.SpawnContext):  # type: ignore[misc]
    """The spawn context with shoal's Pool."""


class ForkServerContext(_PoolMixin, _stock_context.ForkServerContext):  # type: ignore[misc]
    """The forkserver context with shoal's Pool."""


_contexts: dict[str, BaseContext] = {
    "fork": ForkContext(),
    "spawn": SpawnContext(),
    "forkserver": ForkServerContext(),
}


def get_context(method: str | None = None) -> BaseContext:  # type: ignore[no-redef]
    """The context of a start method, by default the one set for the program."""
    stock = _stock.get_context(method)  # also fixes the default, and raises for an unknown method
    return _contexts.get(stock.get_start_method(), stock)


def Pool(  # type: ignore[no-redef]
    processes: int | None = None,
    initializer: Callable[..., object] | None = None,
    initargs: Iterable[Any] = (),
    maxtasksperchild: int | None = None,
) -> DropInPool:
    """Returns a process pool object"""
    from shoal._dropin import DropInPool

    return DropInPool(processes, initializer, initargs, maxtasksperchild, get_context())


def __getattr__(name: str) -> Any:
    if not name.startswith("__"):
        return getattr(_stock, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *dir(_stock)})
