# SPDX-License-Identifier: Apache-2.0
"""Pools and executors of every kind, for suites that run on all of them.

A kind says which library makes the pool and how its workers start. `shoal-clean` is a zygote whose
template cannot be a snapshot of this process, because another thread runs while it is made.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import shoal

STOCK = ("stdlib-fork", "stdlib-spawn")
SHOAL = ("shoal-zygote", "shoal-clean", "shoal-fork", "shoal-spawn")
ALL = STOCK + SHOAL
# Time limits by signal: a watchdog thread would keep pools from being made as snapshots.
WATCHDOG = pytest.mark.timeout(60, method="signal")


@contextmanager
def _as_kind(kind: str) -> Iterator[str]:
    """The start method. While the context is entered, the process is in the state that the kind
    needs.
    """
    if kind != "shoal-clean":
        yield kind.partition("-")[2]
        return
    leave = threading.Event()
    thread = threading.Thread(target=leave.wait)
    thread.start()
    try:
        yield "zygote"
    finally:
        leave.set()
        thread.join()


def make_pool(kind: str, processes: int | None = 2, *args: Any, **options: Any) -> Any:
    with _as_kind(kind) as method:
        if kind in STOCK:
            return multiprocessing.get_context(method).Pool(processes, *args, **options)
        return shoal.Pool(processes, *args, start=method, **options)


def make_executor(kind: str, workers: int | None = 2, **options: Any) -> Any:
    with _as_kind(kind) as method:
        if kind in STOCK:
            context = multiprocessing.get_context(method)
            return concurrent.futures.ProcessPoolExecutor(workers, mp_context=context, **options)
        return shoal.Executor(workers, start=method, **options)


def end(pool: Any) -> None:
    """Terminate, and wait: the standard library leaves processes behind for a moment."""
    pool.terminate()
    pool.join()


Maker = Callable[..., Any]
