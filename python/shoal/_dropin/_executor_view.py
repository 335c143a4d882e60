# SPDX-License-Identifier: Apache-2.0
"""Private attributes of ProcessPoolExecutor, emulated for shoal's executor: see `_stock_counters`.

`attribute(executor, name)` is called for names that the executor does not have. An executor that
has sent nothing has no engine yet, and reading such an attribute does not create one.
"""

from __future__ import annotations

import concurrent.futures.process as stock_futures
from concurrent.futures import Future

from shoal._dropin._stock_counters import (
    MappingView,
    Open,
    QueueView,
    chunks_left,
    is_over,
    waiting_chunks,
)
from shoal._dropin._stock_view import WorkersEnd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from shoal._dropin._executor import DropInExecutor, ExecutorEngine

_stock: Any = stock_futures


def attribute(executor: DropInExecutor, name: str) -> Any:
    view = _VIEWS.get(name)
    if view is None:
        raise AttributeError(f"{type(executor).__name__!r} object has no attribute {name!r}")
    return view(executor)


def _engine_of(executor: DropInExecutor) -> ExecutorEngine | None:
    return executor.__dict__.get("_engine")


# ---- Open tasks ----------------------------------------------------------------------------------


def work_items(engine: ExecutorEngine | None) -> dict[int, Any]:
    """A `_WorkItem` for each open call and each open chunk of a map, as in the standard library."""
    if engine is None:
        return {}
    now = Open(engine)
    items = {
        future._ticket: _stock._WorkItem(future, None, (), {})
        for future, _ in now.calls
        if not future.done()
    }
    for job in now.jobs.values():
        for number in range(chunks_left(job)):
            items[-1 - number - len(items)] = _stock._WorkItem(_running(), None, (), {})
    return items


def _running() -> Future[Any]:
    """A running future that represents a chunk of a map: a chunk cannot be cancelled alone."""
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    return future


def waiting(engine: ExecutorEngine | None) -> int:
    """Calls and chunks that no worker has begun."""
    if engine is None:
        return 0
    now = Open(engine)
    return now.waiting_calls + sum(waiting_chunks(engine, job) for job in now.jobs.values())


def _split(executor: DropInExecutor) -> tuple[Callable[[], int], Callable[[], int]]:
    """The lengths of the standard library's two queues, of work ids and of calls. A task is in the
    first queue only if the second is full. Their sum is the number of tasks that no worker has
    begun.
    """
    engine = _engine_of(executor)
    room = executor._max_workers + _stock.EXTRA_QUEUED_CALLS
    return lambda: max(0, waiting(engine) - room), lambda: min(waiting(engine), room)


class CallQueueView(QueueView):
    """The queue from which workers take calls."""

    def __init__(self, executor: DropInExecutor) -> None:
        super().__init__(_split(executor)[1])
        self._engine = _engine_of(executor)
        self._maxsize = executor._max_workers + _stock.EXTRA_QUEUED_CALLS

    def full(self) -> bool:
        return bool(self.qsize() >= self._maxsize)

    def join_thread(self) -> None:
        """Wait until the executor has ended, if it has started."""
        if self._engine is not None:
            WorkersEnd(self._engine).join()


class IdleView:
    """The semaphore that counts idle workers."""

    def __init__(self, engine: ExecutorEngine | None) -> None:
        self._engine = engine

    @property
    def _value(self) -> int:
        engine = self._engine
        if engine is None or is_over(engine):
            return 0
        return sum(seat["ready"] and not seat["running"] for seat in engine.client.seats())

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Whether a worker is idle. Reserves none."""
        return self._value > 0

    def release(self, n: int = 1) -> None:
        """Does nothing, because `acquire` reserves nothing."""


class WakeupView:
    """The object that wakes the standard library's manager thread; shoal has no such thread."""

    def wakeup(self) -> None:
        pass

    clear = close = wakeup


def _unless_shut_down(make: Callable[[DropInExecutor], Any]) -> Callable[[DropInExecutor], Any]:
    return lambda executor: None if executor._shut_down_unused else make(executor)


def _pending(executor: DropInExecutor) -> MappingView:
    engine = _engine_of(executor)
    return MappingView(lambda: work_items(engine))


def _is_shut_down(executor: DropInExecutor) -> bool:
    engine = _engine_of(executor)
    return bool(executor._shut_down_unused or (engine is not None and engine.closed))


_VIEWS: dict[str, Callable[[DropInExecutor], Any]] = {
    "_pending_work_items": _pending,
    "_work_ids": lambda executor: QueueView(_split(executor)[0]),
    "_call_queue": _unless_shut_down(CallQueueView),
    "_result_queue": _unless_shut_down(lambda executor: QueueView(lambda: 0)),
    "_shutdown_thread": _is_shut_down,
    "_executor_manager_thread_wakeup": _unless_shut_down(lambda executor: WakeupView()),
    "_idle_worker_semaphore": lambda executor: IdleView(_engine_of(executor)),
    "_safe_to_dynamically_spawn_children": (
        lambda executor: vars(executor)["_mp_context"].get_start_method() != "fork"
    ),
}
