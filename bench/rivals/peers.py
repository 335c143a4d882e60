# SPDX-License-Identifier: Apache-2.0
"""Other packages as executors, for `--peers`. Installed ones are used; none is required."""

from __future__ import annotations

import concurrent.futures
import importlib
import importlib.util
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

NAMES = ("joblib", "loky")


def available(name: str) -> bool:
    """Whether the peer can take part."""
    return name in NAMES and importlib.util.find_spec(name) is not None


@contextmanager
def open_executor(name: str, processes: int) -> Iterator[Any]:
    """The peer with the interface of an executor. Leaves no persistent state behind."""
    if name == "loky":
        loky = importlib.import_module(name)
        with loky.ProcessPoolExecutor(processes) as executor:
            yield executor
    elif name == "joblib":
        joblib = importlib.import_module(name)
        with joblib.Parallel(n_jobs=processes, pre_dispatch="all") as parallel:
            yield _JoblibExecutor(parallel, joblib.delayed)
    else:
        raise ValueError(f"no peer named {name!r}: {', '.join(NAMES)}")


class _JoblibExecutor:
    """joblib has one function, Parallel: used for a call of one task, or for a map with joblib's
    own batches.
    """

    def __init__(self, parallel: Any, delayed: Any) -> None:
        self._parallel = parallel
        self._delayed = delayed

    def submit(self, fn: Callable[..., Any], *args: Any) -> concurrent.futures.Future[Any]:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        future.set_result(self._parallel([self._delayed(fn)(*args)])[0])
        return future

    def map(self, fn: Callable[..., Any], values: Iterable[Any]) -> Any:
        return self._parallel(self._delayed(fn)(value) for value in values)
