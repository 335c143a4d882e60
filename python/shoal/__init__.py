# SPDX-License-Identifier: Apache-2.0
"""Process parallelism on shared memory, with the standard library's API.

    >>> import shoal
    >>> with shoal.Pool(2) as pool:
    ...     pool.map(abs, [-1, 2, -3])
    [1, 2, 3]

`Pool` has the interface of `multiprocessing.Pool`, `Executor` that of
`concurrent.futures.Executor`, both with time limits, retries, cancelling and statistics. Queues,
locks and other synchronization objects, `Pipe`, `Dict`, `List`, `Set`, `Namespace`, `Atomic` and
`Flag` are in shared memory.
`shoal run prog.py` replaces the standard library's classes by shoal's in an unmodified program;
`install()` does so from within a program. `shoal.multiprocessing` is the drop-in module.

Names are loaded on first use: importing shoal loads none of these classes.
"""

from __future__ import annotations

import sys

from shoal._runtime import _imports

TYPE_CHECKING = False  # importing `typing` would cost more than everything else here

if not sys.platform.startswith("linux"):
    raise ImportError(
        f"shoal needs Linux (futexes, memfd, pidfds); this is {sys.platform}. "
        "Use multiprocessing here: the API is the same."
    )

__version__ = "0.1.0"

_HOMES = {
    "AsyncResult": "shoal._pool._results",
    "Atomic": "shoal._shared._sync",
    "Barrier": "shoal._shared._sync",
    "BoundedSemaphore": "shoal._shared._sync",
    "Condition": "shoal._shared._sync",
    "Connection": "shoal._shared._pipes",
    "ConsumerDied": "shoal.errors",
    "CorruptArena": "shoal.errors",
    "Dict": "shoal._shared._collections",
    "Event": "shoal._shared._sync",
    "Executor": "shoal._pool._executor",
    "ExecutorOptions": "shoal._pool._executor",
    "Flag": "shoal._shared._sync",
    "ForkedPool": "shoal.errors",
    "Future": "shoal._pool._futures",
    "IMapIterator": "shoal._pool._results",
    "InitializerFailed": "shoal.errors",
    "JoinableQueue": "shoal._shared._queues",
    "List": "shoal._shared._collections",
    "Lock": "shoal._shared._sync",
    "MapResult": "shoal._pool._results",
    "MemoryExhausted": "shoal.errors",
    "Namespace": "shoal._shared._collections",
    "OwnerDied": "shoal.errors",
    "OwnerDiedWarning": "shoal.errors",
    "Pipe": "shoal._shared._pipes",
    "Pool": "shoal._pool._pool",
    "PoolClosed": "shoal.errors",
    "Queue": "shoal._shared._queues",
    "QueueShutDown": "shoal.errors",
    "RLock": "shoal._shared._sync",
    "RemoteError": "shoal.errors",
    "Semaphore": "shoal._shared._sync",
    "Set": "shoal._shared._collections",
    "ShareableList": "shoal._shared._shareable_list",
    "SharedMemory": "shoal._shared._shared_memory",
    "ShoalError": "shoal.errors",
    "SimpleQueue": "shoal._shared._queues",
    "TaskTimeout": "shoal.errors",
    "WorkerDied": "shoal.errors",
    "cpu_count": "shoal._runtime._cpus",
    "install": "shoal._install._install",
    "is_installed": "shoal._install._install",
    "plain": "shoal._shared._collections",
    "share": "shoal._shared._collections",
    "uninstall": "shoal._install._install",
}

_SUBMODULES = ("errors", "multiprocessing")  # loaded as attributes, without an import statement

__all__ = [
    "AsyncResult",
    "Atomic",
    "Barrier",
    "BoundedSemaphore",
    "Condition",
    "Connection",
    "ConsumerDied",
    "CorruptArena",
    "Dict",
    "Event",
    "Executor",
    "ExecutorOptions",
    "Flag",
    "ForkedPool",
    "Future",
    "IMapIterator",
    "InitializerFailed",
    "JoinableQueue",
    "List",
    "Lock",
    "MapResult",
    "MemoryExhausted",
    "Namespace",
    "OwnerDied",
    "OwnerDiedWarning",
    "Pipe",
    "Pool",
    "PoolClosed",
    "Queue",
    "QueueShutDown",
    "RLock",
    "RemoteError",
    "Semaphore",
    "Set",
    "ShareableList",
    "SharedMemory",
    "ShoalError",
    "SimpleQueue",
    "TaskTimeout",
    "WorkerDied",
    "cpu_count",
    "install",
    "is_installed",
    "plain",
    "share",
    "uninstall",
]

if TYPE_CHECKING:
    from typing import Any

    from shoal._install._install import install, is_installed, uninstall
    from shoal._pool._executor import Executor, ExecutorOptions
    from shoal._pool._futures import Future
    from shoal._pool._pool import Pool
    from shoal._pool._results import AsyncResult, IMapIterator, MapResult
    from shoal._runtime._cpus import cpu_count
    from shoal._shared._collections import Dict, List, Namespace, Set, plain, share
    from shoal._shared._pipes import Connection, Pipe
    from shoal._shared._queues import JoinableQueue, Queue, SimpleQueue
    from shoal._shared._shareable_list import ShareableList
    from shoal._shared._shared_memory import SharedMemory
    from shoal._shared._sync import (
        Atomic,
        Barrier,
        BoundedSemaphore,
        Condition,
        Event,
        Flag,
        Lock,
        RLock,
        Semaphore,
    )
    from shoal.errors import (
        ConsumerDied,
        CorruptArena,
        ForkedPool,
        InitializerFailed,
        MemoryExhausted,
        OwnerDied,
        OwnerDiedWarning,
        PoolClosed,
        QueueShutDown,
        RemoteError,
        ShoalError,
        TaskTimeout,
        WorkerDied,
    )


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return _imports.load(f"shoal.{name}")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'shoal' has no attribute {name!r}")
    value = getattr(_imports.load(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBMODULES})
