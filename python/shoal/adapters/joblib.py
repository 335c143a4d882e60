# SPDX-License-Identifier: Apache-2.0
"""A joblib backend on shoal.

    from shoal.adapters.joblib import register
    register()
    with joblib.parallel_config(backend="shoal"):
        joblib.Parallel(n_jobs=-1)(joblib.delayed(sqrt)(i) for i in range(10))

Under `shoal run`, and after `shoal.install()`, joblib's "loky", its default, is this backend too:
set SHOAL_JOBLIB=loky in the environment to leave it to joblib.

It takes what the loky backend takes. Different from it:

1. A batch whose worker died fails with `WorkerDied`, which is loky's TerminatedWorkerError as well; the
   workers of other calls go on.
2. Large arrays are memory-mapped, so many tasks share one copy, and may be written to: what a task
   writes is its own. With mmap_mode "r+" or "w+" it is seen by all tasks.
3. A parallel call in a worker may use processes again, by name.

Design: docs/design/adapters.md
"""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any

import joblib
from joblib import _parallel_backends as stock
from joblib.externals.loky.process_executor import TerminatedWorkerError

from shoal.adapters import _joblib_workers as workers
from shoal.adapters._joblib_arrays import Sharing
from shoal.errors import WorkerDied

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

NAME = "shoal"
_VARIABLE = "SHOAL_JOBLIB"
_OPTIONS = {"context", "verbose", "temp_folder", "initializer", "initargs"}


def register(*, default: bool = False) -> None:
    """Let joblib know the backend "shoal"; `default` makes it the one that is used unless told
    otherwise.

    >>> import joblib
    >>> from shoal.adapters.joblib import register
    >>> register()
    >>> with joblib.parallel_config(backend="shoal", n_jobs=2):
    ...     joblib.Parallel()(joblib.delayed(abs)(-i) for i in range(3))
    [0, 1, 2]
    """
    joblib.register_parallel_backend(NAME, ShoalBackend, make_default=default)


class BatchDied(WorkerDied, TerminatedWorkerError):  # type: ignore[misc]
    """The worker of a batch ended; `WorkerDied` and what joblib's users catch."""


class ShoalBackend(stock.LokyBackend):  # type: ignore[misc]
    """joblib's view of an executor of shoal, which later calls use again."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._workers: Any = None
        self._sharing: Any = None
        self._open: set[Any] = set()  # futures of this call

    def configure(
        self,
        n_jobs: int = 1,
        parallel: Any = None,
        prefer: str | None = None,
        require: str | None = None,
        idle_worker_timeout: float | None = None,
        **options: Any,
    ) -> int:
        """Have an executor with so many workers; returns their number."""
        n_jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1:
            raise stock.FallbackToBackend(
                stock.SequentialBackend(nesting_level=self.nesting_level)
            )
        options = {**self.backend_kwargs, **options}
        if "timeout" in options:
            raise ValueError(
                "The 'timeout' parameter is not supported by the LokyBackend. "
                "Please use the `idle_worker_timeout` parameter instead."
            )
        asked = options.pop("idle_worker_timeout", 300)
        max_nbytes, mode = options.pop("max_nbytes", None), options.pop("mmap_mode", None)
        unknown = set(options) - _OPTIONS
        if unknown:
            raise TypeError(f"unknown options of the backend: {', '.join(sorted(unknown))}")
        self._workers = workers.acquire(
            n_jobs,
            workers.Preparation(
                self._prepare_worker_env(n_jobs=n_jobs),
                options.get("initializer"),
                options.get("initargs", ()),
            ),
            asked if idle_worker_timeout is None else idle_worker_timeout,
        )
        self._sharing = Sharing(max_nbytes, mode)
        self.parallel = parallel
        return n_jobs

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many workers a call gets that asks for so many. Those of shoal may have their own."""
        if not workers.is_worker() or n_jobs == 0 or n_jobs is None or stock.mp is None:
            return int(super().effective_n_jobs(n_jobs))
        if not (self.in_main_thread() or self.nesting_level == 0):
            if n_jobs != 1:
                warnings.warn(
                    "Parallel loops in processes cannot be nested below threads, setting n_jobs=1",
                    stacklevel=3,
                )
            return 1
        if n_jobs < 0:
            return max(int(joblib.cpu_count()) + 1 + n_jobs, 1)
        return n_jobs

    def submit(self, func: Any, callback: Callable[[Any], object] | None = None) -> Any:
        """Send a batch of calls."""
        nested, n_jobs = getattr(func, "_backend", None), getattr(func, "_n_jobs", None)
        items, kept = self._sharing.wrap(func.items)
        if type(nested) is stock.ThreadingBackend and nested.inner_max_num_threads is None:
            nested = nested.nesting_level  # cheaper than the object
        future = self._workers.executor.submit(run_batch, items, nested, n_jobs)
        futures = self._open
        futures.add(future)

        def ended(future: Any) -> None:
            futures.discard(future)
            kept.clear()
            if callback is not None:
                callback(future)

        future.add_done_callback(ended)
        return future

    def retrieve_result_callback(self, future: Any) -> Any:
        """The results of a batch, or what it raised."""
        try:
            return future.result()
        except WorkerDied as error:
            raise _as_joblib_knows_it(error) from error

    def terminate(self) -> None:
        """The call is over. The workers stay for the next one."""
        if self._workers is not None:
            workers.release(self._workers)
            self._workers = None
        self._sharing = None
        self.reset_batch_stats()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Withdraw and stop what this call has sent. Calls that share the workers go on."""
        for future in list(self._open):
            future.cancel()
        if not ensure_ready and self._workers is not None:
            workers.release(self._workers)
            self._workers = None


def _as_joblib_knows_it(error: WorkerDied) -> BatchDied:
    return BatchDied(str(error), **{key: getattr(error, key) for key in _FACTS})


_FACTS = ("pid", "signal", "exitcode", "peak_memory", "memory_limit_hit", "task", "arguments")


def run_batch(items: list[Any], nested: Any, n_jobs: int | None) -> list[Any]:
    """In a worker: the calls of a batch, one after the other."""
    joblib.parallel.BACKENDS.setdefault(NAME, ShoalBackend)  # calls may ask for it in their turn
    if isinstance(nested, int):
        nested = stock.ThreadingBackend(nesting_level=nested)
    if nested is None:
        return [function(*args, **kwargs) for function, args, kwargs in items]
    with joblib.parallel_config(backend=nested, n_jobs=n_jobs):
        return [function(*args, **kwargs) for function, args, kwargs in items]


# ---- Under `shoal run` ---------------------------------------------------------------------------


class ShoalLokyBackend(ShoalBackend):
    """What joblib knows as "loky" under shoal; loky's own once `shoal.uninstall()` was called."""

    def __new__(cls, **options: Any) -> Any:
        from shoal import _install

        is_left = not _install.is_installed()
        _install._record("left" if is_left else "swapped", stock.LokyBackend, "")
        return stock.LokyBackend(**options) if is_left else object.__new__(cls)


def serve(module: ModuleType) -> None:
    """`joblib.parallel` was imported: its "loky" is shoal while shoal is installed."""
    if module.BACKENDS.get("loky") is not stock.LokyBackend:
        return  # done already, or there are no processes here
    module.BACKENDS.setdefault(NAME, ShoalBackend)
    if os.environ.get(_VARIABLE) != "loky":
        module.BACKENDS["loky"] = ShoalLokyBackend
