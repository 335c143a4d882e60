# SPDX-License-Identifier: Apache-2.0
"""The classes that stand in for the standard library's: its signatures on shoal's pools.

Made by `shoal.install()`, `shoal run` and `shoal.multiprocessing`, never named by users. Each is
shoal's own class first and the stock class second, so `isinstance` holds for both and the stock
code runs nowhere. The start method is the one of the context, as the standard library would have
it: fork for fork, spawn for spawn, and the zygote for forkserver, whose promise (fork from a clean
process) it keeps.
Design: docs/design/drop_in.md
"""

from __future__ import annotations

import concurrent.futures.process as stock_futures
import multiprocessing
import multiprocessing.pool as stock_pool
from collections.abc import Callable, Iterable
from multiprocessing.context import BaseContext
from types import ModuleType
from typing import Any

from shoal import _executor, _pool

_STARTS = {"fork": "fork", "spawn": "spawn", "forkserver": "zygote"}

Context = BaseContext | ModuleType | None


class DropInPool(_pool.Pool, stock_pool.Pool):
    """`multiprocessing.pool.Pool` on shoal."""

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Context = None,
    ) -> None:
        self._ctx = _concrete(context)
        _check_pool_arguments(processes, initializer, maxtasksperchild)
        _pool.Pool.__init__(
            self,
            processes,
            initializer,
            tuple(initargs),
            maxtasksperchild,
            start=_start(self._ctx),
        )


class DropInExecutor(_executor.Executor, stock_futures.ProcessPoolExecutor):
    """`concurrent.futures.ProcessPoolExecutor` on shoal."""

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: Context = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
    ) -> None:
        if mp_context is None and max_tasks_per_child is not None:
            mp_context = multiprocessing.get_context("spawn")
        self._mp_context = _concrete(mp_context)
        _check_executor_arguments(self._mp_context, max_workers, initializer, max_tasks_per_child)
        _executor.Executor.__init__(
            self,
            max_workers,
            start=_start(self._mp_context),
            initializer=initializer,
            initargs=initargs,
            max_tasks_per_child=max_tasks_per_child,
        )


def _concrete(context: Context) -> BaseContext:
    """The context itself; for none, or the module `multiprocessing`, the default one."""
    if context is None or isinstance(context, ModuleType):
        return multiprocessing.get_context()
    return context


def _start(context: BaseContext) -> str:
    method = context.get_start_method()
    if method != "fork":
        # A program without a __main__ guard gets the standard library's error, not a fork bomb.
        from multiprocessing.spawn import _check_not_importing_main  # type: ignore[attr-defined]

        _check_not_importing_main()
    return _STARTS[method]


def _check_pool_arguments(
    processes: int | None,
    initializer: Callable[..., object] | None,
    maxtasksperchild: int | None,
) -> None:
    """The checks of the stock constructor, with its texts."""
    if processes is not None and processes < 1:
        raise ValueError("Number of processes must be at least 1")
    if maxtasksperchild is not None and (
        not isinstance(maxtasksperchild, int) or maxtasksperchild <= 0
    ):
        raise ValueError("maxtasksperchild must be a positive int or None")
    if initializer is not None and not callable(initializer):
        raise TypeError("initializer must be a callable")


def _check_executor_arguments(
    context: BaseContext,
    max_workers: int | None,
    initializer: Callable[..., object] | None,
    max_tasks_per_child: int | None,
) -> None:
    """The checks of the stock constructor, with its texts."""
    if max_workers is not None and max_workers <= 0:
        raise ValueError("max_workers must be greater than 0")
    if initializer is not None and not callable(initializer):
        raise TypeError("initializer must be a callable")
    if max_tasks_per_child is None:
        return
    if not isinstance(max_tasks_per_child, int):
        raise TypeError("max_tasks_per_child must be an integer")
    if max_tasks_per_child <= 0:
        raise ValueError("max_tasks_per_child must be >= 1")
    if context.get_start_method() == "fork":
        raise ValueError(
            "max_tasks_per_child is incompatible with the 'fork' multiprocessing start method;"
            " supply a different mp_context."
        )
