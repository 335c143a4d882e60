# SPDX-License-Identifier: Apache-2.0
"""The executors that parallel calls acquire and release, and the preparation of their workers.

An executor is kept for the next call with the same parameters. A call with other parameters ends
the unused executors. `timeout` seconds of idleness end an executor too (`_idle`).

Module state: `_kept`, written under `_lock`; `_depth`, set in a worker.
Design: docs/design/adapters.md
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from shoal._pool._executor import Executor
from shoal._runtime import _locks
from shoal.adapters import _idle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_DEPTH = 10  # workers of workers; loky's limit
_BLAS = (
    "openblas_set_num_threads",
    "openblas_set_num_threads64_",
    "scipy_openblas_set_num_threads",
    "scipy_openblas_set_num_threads64_",
)

_lock = _locks.RLock()
_locks.renew_in_children(sys.modules[__name__], "_lock", _locks.RLock)
_kept: list[Shared] = []
_depth = 0


@dataclass
class Preparation:
    """What a worker does before its first batch: set the environment and thread limits, call the
    user's initializer.
    """

    environment: dict[str, str]
    initializer: Callable[..., object] | None = None
    initargs: tuple[Any, ...] = ()


@dataclass(eq=False)
class Shared:
    """An executor and the number of calls that use it."""

    n_jobs: int
    preparation: Preparation
    executor: Executor
    timeout: float | None = None  # how long it may be idle, in seconds
    users: int = 1
    idle_since: float = field(default_factory=time.monotonic)

    def look(self, now: float) -> float | None:
        """End the executor if it has been idle for too long: see `_idle`."""
        with _lock:
            if self not in _kept or self.users > 0 or self.timeout is None:
                return None
            due = self.idle_since + self.timeout
            if now < due:
                return due
            _kept.remove(self)
        self.executor.shutdown()
        return None


def acquire(n_jobs: int, preparation: Preparation, timeout: float | None) -> Shared:
    """An executor with these parameters. The caller must `release` it."""
    if _depth >= MAX_DEPTH:
        raise RuntimeError(
            f"parallel calls in workers of workers, {_depth} levels deep: the limit is "
            f"{MAX_DEPTH}. Use n_jobs=1 inside"
        )
    with _lock:
        _drop_unusable()
        for shared in _kept:
            # A call with another time limit gets other workers, as from joblib's own backend.
            same = shared.n_jobs == n_jobs and shared.timeout == timeout
            if same and _same(shared.preparation, preparation):
                shared.users += 1
                return shared
        for shared in [shared for shared in _kept if shared.users == 0]:
            _kept.remove(shared)
            shared.executor.shutdown()
        executor = Executor(
            n_jobs,
            initializer=prepare,
            initargs=(_depth + 1, preparation),
        )
        shared = Shared(n_jobs, preparation, executor, timeout)
        _kept.append(shared)
        return shared


def release(shared: Shared) -> None:
    with _lock:
        shared.users -= 1
        shared.idle_since = time.monotonic()
        if shared.users == 0 and shared.timeout is not None:
            _idle.watch(shared, shared.idle_since + shared.timeout)


def _same(one: Preparation, other: Preparation) -> bool:
    try:
        return bool(one == other)
    except Exception:  # arguments such as arrays, whose comparison has no truth value
        return False


def _drop_unusable() -> None:
    for shared in list(_kept):
        if not shared.executor._engine.takes_tasks:
            _kept.remove(shared)


def _after_fork_in_child() -> None:
    _kept.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)


# ---- In a worker ---------------------------------------------------------------------------------


def is_worker() -> bool:
    """Whether this process is a worker of shoal."""
    import multiprocessing.process

    kinds = (
        ("shoal._workers._worker_process", "WorkerProcess"),
        ("shoal._dropin._processes", "PoolProcess"),
    )
    process = multiprocessing.process.current_process()
    return any(
        isinstance(process, getattr(sys.modules[module], name))
        for module, name in kinds
        if module in sys.modules
    )


def prepare(depth: int, preparation: Preparation) -> None:
    """The initializer of the workers of these executors."""
    global _depth
    _depth = depth
    os.environ.update(preparation.environment)
    threads = preparation.environment.get("OMP_NUM_THREADS", "")
    if threads.isdecimal():
        limit_threads(int(threads))
    if preparation.initializer is not None:
        preparation.initializer(*preparation.initargs)


def limit_threads(count: int) -> None:
    """Limit the threads of the numerical libraries that are loaded. Libraries that are loaded later
    read the limit from the environment.
    """
    try:
        import threadpoolctl
    except ImportError:
        _limit_blas(count)
    else:
        threadpoolctl.threadpool_limits(count)


def _limit_blas(count: int) -> None:
    from shoal._workers import _fork_safety

    for path in _fork_safety._libraries():
        if "openblas" not in os.path.basename(path):
            continue
        try:
            library = ctypes.CDLL(path, mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
        except OSError:
            continue
        for name in _BLAS:
            function = getattr(library, name, None)
            if function is not None:
                function(ctypes.c_int(count))
                break
