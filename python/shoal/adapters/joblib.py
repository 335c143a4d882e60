# SPDX-License-Identifier: Apache-2.0
"""A joblib backend on shoal.

    from shoal.adapters.joblib import register
    register()
    with joblib.parallel_config(backend="shoal"):
        joblib.Parallel(n_jobs=-1)(joblib.delayed(sqrt)(i) for i in range(10))

Under `shoal run`, and after `shoal.install()`, joblib's default backend "loky" is this backend too:
set SHOAL_JOBLIB=loky in the environment to keep joblib's own.

It takes the same options as the loky backend. The differences:

1. A batch whose worker died fails with `WorkerDied`, which is also loky's TerminatedWorkerError;
   the workers of other calls go on.
2. Large arrays are memory-mapped, so that many tasks share one copy. Tasks may write to them; the
   writes are private to the task. With mmap_mode "r+" or "w+" all tasks see them.
3. A parallel call in a worker may use processes again, if it names the backend.

Design: docs/design/adapters.md
"""

from __future__ import annotations

import os
import pickle
import threading
import time
import warnings
from concurrent.futures import Future
from types import FunctionType

import joblib
from joblib import _parallel_backends as stock
from joblib.externals.loky.process_executor import TerminatedWorkerError

from shoal._pool._engine import function_name
from shoal.adapters import _joblib_workers as workers
from shoal.adapters._joblib_arrays import Sharing
from shoal.errors import ShoalError, WorkerDied

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

NAME = "shoal"
_VARIABLE = "SHOAL_JOBLIB"
_PENDING = "Pending"  # joblib's status of a batch that has not ended
_PATIENCE = 0.05  # the most seconds before joblib can check its time limits again
_OPTIONS = {"context", "verbose", "temp_folder", "initializer", "initargs"}


def register(*, default: bool = False) -> None:
    """Register the backend "shoal" with joblib; `default` makes it joblib's default backend.

    >>> import joblib
    >>> from shoal.adapters.joblib import register
    >>> register()
    >>> with joblib.parallel_config(backend="shoal", n_jobs=2):
    ...     joblib.Parallel()(joblib.delayed(abs)(-i) for i in range(3))
    [0, 1, 2]
    """
    joblib.register_parallel_backend(NAME, ShoalBackend, make_default=default)


class BatchDied(WorkerDied, TerminatedWorkerError):  # type: ignore[misc]
    """The worker of a batch ended. Also a TerminatedWorkerError, which joblib's users catch."""


class ShoalBackend(stock.LokyBackend):  # type: ignore[misc]
    """joblib's view of an executor of shoal, which later calls reuse."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._workers: Any = None
        self._sharing: Any = None
        self._open: set[Any] = set()  # futures of this call
        self._progress = threading.Event()  # a batch has ended

    def configure(
        self,
        n_jobs: int = 1,
        parallel: Any = None,
        prefer: str | None = None,
        require: str | None = None,
        idle_worker_timeout: float | None = None,
        **options: Any,
    ) -> int:
        """Acquire an executor with so many workers; returns their number."""
        n_jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1:
            raise stock.FallbackToBackend(stock.SequentialBackend(nesting_level=self.nesting_level))
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
        """The number of workers that a call with `n_jobs` gets. Unlike loky's, shoal's workers may
        have workers of their own.
        """
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
        nested: Any = getattr(func, "_backend", None)
        n_jobs = getattr(func, "_n_jobs", None)
        items, kept = self._sharing.wrap(by_value(func.items))
        if type(nested) is stock.ThreadingBackend and nested.inner_max_num_threads is None:
            nested = nested.nesting_level  # cheaper than the object
        future = self._workers.executor.submit(run_batch, items, nested, n_jobs)
        future.calls = _describe(func.items)  # for the message if the worker dies
        if not future._ticket:
            future = _not_sent(future)
        futures, progress = self._open, self._progress
        futures.add(future)
        if callback is not None:
            self._have_waiting(callback)

        def ended(future: Any) -> None:
            futures.discard(future)
            kept.clear()
            if callback is not None:
                callback(future)
                vars(callback).pop("get_status", None)  # breaks a reference cycle
            progress.set()

        future.add_done_callback(ended)
        if getattr(self.parallel, "_aborting", False):
            future.cancel()  # abort_everything, in another thread, may not have seen it yet
        return future

    def _have_waiting(self, tracker: Any) -> None:
        """joblib polls a batch's status, and sleeps 10 ms if the batch has not ended. Make the poll
        wait until a batch ends.
        """
        stock_status = getattr(tracker, "get_status", None)
        if stock_status is None:
            return
        progress, parallel = self._progress, self.parallel

        def get_status(timeout: float | None) -> Any:
            end = time.monotonic() + _PATIENCE
            while True:
                progress.clear()
                status = stock_status(timeout)
                left = end - time.monotonic()
                if tracker.status != _PENDING or left <= 0 or parallel._aborting:
                    return status
                progress.wait(left)

        tracker.get_status = get_status

    def retrieve_result_callback(self, future: Any) -> Any:
        """Return the results of a batch, or raise its exception."""
        try:
            return future.result()
        except WorkerDied as error:
            raise _as_joblib_knows_it(error, future.calls) from None

    def terminate(self) -> None:
        """The call is over. The workers stay for the next one."""
        if self._workers is not None:
            workers.release(self._workers)
            self._workers = None
        self._sharing = None
        self.reset_batch_stats()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Withdraw or stop all batches of this call. Calls that share the workers go on."""
        for future in list(self._open):
            future.cancel()
        if not ensure_ready and self._workers is not None:
            workers.release(self._workers)
            self._workers = None


def _describe(items: list[Any]) -> tuple[str, int]:
    """The function of a batch's first call, and how many calls it has."""
    return function_name(items[0][0]), len(items)


def _as_joblib_knows_it(error: WorkerDied, calls: tuple[str, int]) -> BatchDied:
    """The same death, with the user's function in the message instead of `run_batch`."""
    task, count = calls
    arguments = f"one of {count} calls of a batch" if count > 1 else "..."
    told = str(error).replace(f"{error.task}({error.arguments})", f"{task}({arguments})")
    told = told.partition(". The pool goes on")[0]
    facts = {key: getattr(error, key) for key in _FACTS}
    return BatchDied(told, **facts, task=task, arguments=arguments)


_FACTS = ("pid", "signal", "exitcode", "peak_memory", "memory_limit_hit")


def _not_sent(future: Any) -> Any:
    """A future with the error that joblib raises for a batch that could not be pickled."""
    cause = future.exception()
    if isinstance(cause, ShoalError):
        return future
    error = pickle.PicklingError(f"Could not pickle the task to send to the workers: {cause!r}")
    error.__cause__ = cause
    made: Future[Any] = Future()
    made.set_exception(error)
    return made


class ByValue:
    """Unpickles as the function, with the values that its globals had when it was sent."""

    def __init__(self, function: FunctionType) -> None:
        self._function = function

    def __reduce__(self) -> tuple[Any, ...]:
        import cloudpickle

        return cloudpickle.loads, (cloudpickle.dumps(self._function),)


def by_value(items: list[Any]) -> list[Any]:
    """The calls, with inner functions of modules replaced, so that they are sent by value, as
    joblib does.

    Without this, shoal would rebuild them with the globals of the worker's module, which may have
    been imported, or forked, before the sender's globals changed.
    """
    made: dict[int, ByValue] = {}
    return [
        (made.setdefault(id(item[0]), ByValue(item[0])), *item[1:]) if _is_inner(item[0]) else item
        for item in items
    ]


def _is_inner(function: Any) -> bool:
    return (
        type(function) is FunctionType
        and "<" in function.__qualname__
        and function.__module__ not in ("__main__", "__mp_main__")
    )


def run_batch(items: list[Any], nested: Any, n_jobs: int | None) -> list[Any]:
    """In a worker: run the calls of a batch, one after the other."""
    joblib.parallel.BACKENDS.setdefault(NAME, ShoalBackend)  # nested calls may name the backend
    if isinstance(nested, int):
        nested = stock.ThreadingBackend(nesting_level=nested)
    if nested is None:
        return [function(*args, **kwargs) for function, args, kwargs in items]
    with joblib.parallel_config(backend=nested, n_jobs=n_jobs):
        return [function(*args, **kwargs) for function, args, kwargs in items]


# ---- Under `shoal run` ---------------------------------------------------------------------------


class ShoalLokyBackend(ShoalBackend):
    """The backend that joblib knows as "loky" while shoal is installed. After `shoal.uninstall()`
    it makes joblib's own backend.
    """

    def __new__(cls, **options: Any) -> Any:
        from shoal._install import _install

        is_left = not _install.is_installed()
        _install._record("left" if is_left else "swapped", stock.LokyBackend, "")
        return stock.LokyBackend(**options) if is_left else object.__new__(cls)


def serve(module: ModuleType) -> None:
    """Called when `joblib.parallel` was imported: register the backends."""
    if module.BACKENDS.get("loky") is not stock.LokyBackend:
        return  # already done, or joblib has no processes here
    module.BACKENDS.setdefault(NAME, ShoalBackend)
    if os.environ.get(_VARIABLE) != "loky":
        module.BACKENDS["loky"] = ShoalLokyBackend
