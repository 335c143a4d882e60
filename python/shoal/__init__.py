# SPDX-License-Identifier: Apache-2.0
"""Process parallelism on one shared memory, with the standard library's API.

    >>> import shoal
    >>> with shoal.Pool(2) as pool:
    ...     pool.map(abs, [-1, 2, -3])
    [1, 2, 3]

`Pool` is `multiprocessing.Pool`, `Executor` is `concurrent.futures.Executor`, with time limits,
retries, cancelling and statistics. `shoal run prog.py` gives both to an unmodified program, and
`install()` does so from within. `shoal.multiprocessing` is the drop-in module.

Names are loaded when they are first used: importing shoal imports nothing else.
"""

from __future__ import annotations

import importlib
import sys

TYPE_CHECKING = False  # as typing's, whose import would cost more than all the rest here

if not sys.platform.startswith("linux"):
    raise ImportError(
        f"shoal needs Linux (futexes, memfd, pidfds); this is {sys.platform}. "
        "Use multiprocessing here: the API is the same."
    )

__version__ = "0.1.0"

_HOMES = {
    "AsyncResult": "shoal._results",
    "CorruptArena": "shoal.errors",
    "Executor": "shoal._executor",
    "ForkedPool": "shoal.errors",
    "Future": "shoal._futures",
    "InitializerFailed": "shoal.errors",
    "MemoryExhausted": "shoal.errors",
    "Pool": "shoal._pool",
    "PoolClosed": "shoal.errors",
    "RemoteError": "shoal.errors",
    "ShoalError": "shoal.errors",
    "TaskTimeout": "shoal.errors",
    "WorkerDied": "shoal.errors",
    "cpu_count": "shoal._engine",
    "install": "shoal._install",
    "uninstall": "shoal._install",
}

__all__ = [
    "AsyncResult",
    "CorruptArena",
    "Executor",
    "ForkedPool",
    "Future",
    "InitializerFailed",
    "MemoryExhausted",
    "Pool",
    "PoolClosed",
    "RemoteError",
    "ShoalError",
    "TaskTimeout",
    "WorkerDied",
    "cpu_count",
    "install",
    "uninstall",
]

if TYPE_CHECKING:
    from typing import Any

    from shoal._engine import cpu_count
    from shoal._executor import Executor
    from shoal._futures import Future
    from shoal._install import install, uninstall
    from shoal._pool import Pool
    from shoal._results import AsyncResult
    from shoal.errors import (
        CorruptArena,
        ForkedPool,
        InitializerFailed,
        MemoryExhausted,
        PoolClosed,
        RemoteError,
        ShoalError,
        TaskTimeout,
        WorkerDied,
    )


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'shoal' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
