# SPDX-License-Identifier: Apache-2.0
"""`loky.get_reusable_executor` on shoal, while shoal is installed: in loky and in joblib's copy.

The executor is a `shoal.Executor`: a worker's death fails only its task, with `WorkerDied`, whereas
loky's executor would be broken. Idle workers end after `timeout` seconds, and the next task starts
new ones.

Module state: `_current`, the executor that is reused and the arguments with which it was requested,
and `_next_id`; both written under `_lock`.
Design: docs/design/adapters.md
"""

from __future__ import annotations

import os
import sys
import time

from shoal._pool._executor import Executor
from shoal._runtime import _cpus, _locks
from shoal.adapters import _idle
from shoal.adapters import _joblib_workers as workers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

_lock = _locks.RLock()
_locks.renew_in_children(sys.modules[__name__], "_lock", _locks.RLock)
_current: tuple[ReusableExecutor, dict[str, Any]] | None = None
_next_id = 0
_cpu_count: Callable[[], int] = _cpus.cpu_count  # loky's own once it is imported


class ReusableExecutor(Executor):
    """The executor that `get_reusable_executor` returns: a `shoal.Executor` with the additional
    attributes of loky's.
    """

    _asleep = False  # its idle workers have been ended, but it was not shut down
    _is_shut_down = False

    def __init__(
        self,
        max_workers: int,
        executor_id: int,
        preparation: workers.Preparation,
        timeout: float | None,
    ) -> None:
        self._max_workers = max_workers
        self.executor_id = executor_id
        self._preparation = preparation
        self._timeout = timeout
        self._calls = 0
        self._calls_seen = -1  # the value of `_calls` when the executor was last found idle
        self._awake = _locks.RLock()  # held while a task is sent, and while the workers end
        self._start()

    def _start(self) -> None:
        super().__init__(
            self._max_workers,
            initializer=workers.prepare,
            initargs=(workers._depth + 1, self._preparation),
        )

    @property
    def takes_tasks(self) -> bool:
        return not self._is_shut_down and (self._asleep or self._engine.takes_tasks)

    def obey(self, timeout: float | None) -> None:
        """From now on, end the workers after so many seconds of idleness."""
        self._timeout = timeout
        if timeout is not None and not self._asleep:
            _idle.watch(self, time.monotonic() + timeout)

    def look(self, now: float) -> float | None:
        """End the workers if there was no call since the last check: see `_idle`."""
        with self._awake:
            timeout = self._timeout
            if timeout is None or self._asleep or not self.takes_tasks:
                return None
            engine = self._engine
            if engine.client.busy or engine._jobs:
                engine.client.collect(0)
                return now + timeout
            if self._calls_seen != self._calls:
                self._calls_seen = self._calls
                return now + timeout
            self._asleep = True
            engine.finish()
            return None

    def _wake(self) -> None:
        self._calls += 1
        if self._asleep and not self._is_shut_down:
            self._start()
            self._asleep = False
            self.obey(self._timeout)

    def _submit(self, *arguments: Any) -> Any:
        with self._awake:
            self._wake()
            return super()._submit(*arguments)

    def _map(self, *arguments: Any) -> Any:
        with self._awake:
            self._wake()
            return super()._map(*arguments)

    def shutdown(
        self, wait: bool = True, kill_workers: bool = False, *, cancel_futures: bool = False
    ) -> None:
        """Accept no more tasks. `kill_workers`: stop the running tasks."""
        self._is_shut_down = True
        if kill_workers:
            self.kill_workers()
        else:
            super().shutdown(wait, cancel_futures=cancel_futures)


def get_reusable_executor(
    max_workers: int | None = None,
    context: Any = None,
    timeout: float | None = 10,
    kill_workers: bool = False,
    reuse: bool | str = "auto",
    job_reducers: Any = None,
    result_reducers: Any = None,
    initializer: Any = None,
    initargs: tuple[Any, ...] = (),
    env: dict[str, str] | None = None,
) -> ReusableExecutor:
    """The executor of the last call if that had the same arguments, otherwise a new one.

    `timeout`: seconds after which idle workers are ended; None: never. It applies from this call
    on.
    """
    global _current, _next_id
    with _lock:
        before = _current if _current is not None and _current[0].takes_tasks else None
        if max_workers is None:
            max_workers = before[0]._max_workers if reuse is True and before else _cpu_count()
        elif max_workers <= 0:
            raise ValueError(f"max_workers must be greater than 0, got {max_workers}.")
        asked = {"initializer": initializer, "initargs": initargs, "env": env}
        if before is not None:
            executor, was_asked = before
            same = was_asked == asked if reuse == "auto" else bool(reuse)
            if same and executor._max_workers == max_workers:
                executor.obey(timeout)
                return executor
            if same:
                asked = was_asked
            executor.shutdown(kill_workers=kill_workers)
        preparation = workers.Preparation(
            dict(asked["env"] or {}), asked["initializer"], asked["initargs"]
        )
        made = ReusableExecutor(max_workers, _next_id, preparation, timeout)
        made.obey(timeout)
        _next_id += 1
        _current = made, asked
        return made


def _after_fork_in_child() -> None:
    if _current is not None:
        _current[0]._awake = _locks.RLock()


os.register_at_fork(after_in_child=_after_fork_in_child)


def serve(module: ModuleType) -> None:
    """Called when `loky.reusable_executor`, or joblib's copy of it, was imported: replace its
    `get_reusable_executor`.
    """
    import functools

    from shoal._install import _install

    global _cpu_count
    _cpu_count = getattr(module, "cpu_count", _cpu_count)
    stock: Any = module.get_reusable_executor
    if hasattr(stock, "_shoal"):
        return

    @functools.wraps(stock)
    def function(*args: Any, **kwargs: Any) -> Any:
        context = kwargs.get("context", args[1] if len(args) > 1 else None)
        reducers = kwargs.get("job_reducers") or kwargs.get("result_reducers")
        is_left = not _install.is_installed() or context is not None or reducers
        if is_left or os.environ.get("SHOAL_JOBLIB") == "loky":
            return stock(*args, **kwargs)
        _install._record("swapped", module._ReusablePoolExecutor, "")
        return get_reusable_executor(*args, **kwargs)

    function._shoal = True  # type: ignore[attr-defined]
    module.get_reusable_executor = function  # type: ignore[attr-defined]
    package: Any = sys.modules.get(module.__name__.rpartition(".")[0])
    if getattr(package, "get_reusable_executor", None) is stock:
        package.get_reusable_executor = function
