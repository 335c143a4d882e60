# SPDX-License-Identifier: Apache-2.0
"""Private attributes of the standard library's Pool, emulated for shoal's: see `_stock_counters`.

`attribute(pool, name)` is called for names that the pool does not have. No view references the
pool, so a view that a program keeps does not keep the pool alive.
"""

from __future__ import annotations

import time

from shoal._dropin import _stock_classes
from shoal._dropin._stock_counters import (
    MappingView,
    Open,
    QueueView,
    is_open,
    is_over,
    wait_until,
    waiting_chunks,
)
from shoal._pool import _engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from shoal._dropin._engine import DropInEngine


def attribute(pool: Any, name: str) -> Any:
    view = _VIEWS.get(name)
    if view is None:
        raise AttributeError(f"{type(pool).__name__!r} object has no attribute {name!r}")
    made = view(pool._engine)
    if isinstance(made, HandlerView):
        return pool.__dict__.setdefault(name, made)  # kept, because programs set its state
    return made


# ---- Open results --------------------------------------------------------------------------------


def cache(engine: DropInEngine) -> MappingView:
    return MappingView(lambda: open_results(engine))


def open_results(engine: DropInEngine) -> dict[int, Any]:
    """Results that have no outcome yet, by number; for a map whose result is gone, the job."""
    now = Open(engine)
    found: dict[int, Any] = {}
    for sink, _ in now.calls:
        found[getattr(sink, "_job", id(sink))] = sink
    for result in _engine.all_of(engine.results):
        now.jobs.pop(id(result._work), None)
        if is_open(result) and not is_over(engine):
            found[result._job] = result
    return {**found, **now.jobs}


def waiting(engine: DropInEngine) -> int:
    """The length of the standard library's task queue: calls that no worker has begun, plus one for
    each map with chunks that no worker has begun.
    """
    now = Open(engine)
    return now.waiting_calls + sum(waiting_chunks(engine, job) > 0 for job in now.jobs.values())


# ---- The threads that the standard library's pool has --------------------------------------------


class HandlerView:
    """A thread of the stock pool, which lives as long as the pool."""

    daemon = True
    ident = native_id = None

    def __init__(self, engine: DropInEngine, name: str) -> None:
        self._engine = engine
        self.name = name
        self._set_state: str | None = None

    @property
    def _state(self) -> str:
        if self._set_state is not None:
            return self._set_state
        return _stock_classes.state_of(self._engine)

    @_state.setter
    def _state(self, value: str) -> None:
        """Recipes that kill the workers set this first, so that no worker is replaced."""
        self._set_state = value
        if value == _stock_classes.TERMINATE:
            replace_no_worker(self._engine)

    def is_alive(self) -> bool:
        return not is_over(self._engine)

    def join(self, timeout: float | None = None) -> None:
        engine = self._engine
        if self._set_state == _stock_classes.TERMINATE:
            engine.terminate()
        elif engine.closed and not is_over(engine):
            if engine.drain(None if timeout is None else time.monotonic() + timeout):
                engine.finish()
        else:
            wait_until(lambda: is_over(engine), timeout)


def replace_no_worker(engine: DropInEngine) -> None:
    """From now on a worker that dies is not replaced."""
    if not is_over(engine):
        engine.client.want(0)


class TerminateView:
    """The stock pool's finalizer: calling it ends the pool."""

    def __init__(self, engine: DropInEngine) -> None:
        self._engine = engine

    def __call__(self, wr: object = None) -> None:
        self._engine.terminate()

    def still_active(self) -> bool:
        return not is_over(self._engine)

    def cancel(self) -> None:
        """Does nothing: the pool ends with the program in any case."""


class NotifierView:
    """The queue that wakes the stock pool's handler threads; shoal has no such threads."""

    def put(self, item: object) -> None:
        pass

    def get(self) -> None:
        pass

    def empty(self) -> bool:
        return True

    def close(self) -> None:
        pass


_VIEWS: dict[str, Callable[[DropInEngine], Any]] = {
    "_cache": cache,
    "_taskqueue": lambda engine: QueueView(lambda: waiting(engine)),
    "_inqueue": lambda engine: QueueView(lambda: waiting(engine)),
    "_outqueue": lambda engine: QueueView(lambda: 0),  # outcomes that have arrived are processed
    "_quick_put": lambda engine: QueueView(lambda: 0).put,
    "_quick_get": lambda engine: QueueView(lambda: 0).get,
    "_worker_handler": lambda engine: HandlerView(engine, "Thread-workers"),
    "_task_handler": lambda engine: HandlerView(engine, "Thread-tasks"),
    "_result_handler": lambda engine: HandlerView(engine, "Thread-results"),
    "_change_notifier": lambda engine: NotifierView(),
    "_terminate": TerminateView,
}
