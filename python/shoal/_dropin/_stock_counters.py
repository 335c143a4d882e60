# SPDX-License-Identifier: Apache-2.0
"""The open tasks of a pool, counted as the standard library counts them.

Progress bars, back-pressure and "kill the pool" recipes read private attributes of the standard
library's pools, executors and results. `_pool_view`, `_executor_view` and `_result_view` emulate
these attributes with the views of this module, which compute their values on each access. The
modules are imported when a program reads the first such attribute, and cost nothing before.

Reading a counter also processes the outcomes that have arrived, so that a loop that only polls a
counter sees it fall. If a collector thread runs, the processing is left to that thread.
Design: docs/design/drop_in.md
"""

from __future__ import annotations

import time

from shoal._pool import _results

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from shoal._pool._engine import Engine


def take_in(engine: Engine) -> None:
    """Process the outcomes that have arrived, as `ready()` does."""
    if not (engine.forked or engine._agent.ended or engine.collected_for):
        engine.client.collect(0)
        engine.feed_jobs()


def is_over(engine: Engine) -> bool:
    return bool(engine.forked or engine._agent.ended)


def is_open(result: Any) -> bool:
    """Whether a result of the drop-in still misses outcomes."""
    if result.viewed_as == "iterator":
        return not (result._work.done or is_over(result._engine))
    return bool(result._state == _results._PENDING)


class Open:
    """A snapshot of the open tasks of an engine.

    `calls`: for each call without an outcome, its sink, and whether a worker has begun the call.
    `jobs`: by identity, the core's jobs of maps that miss outcomes.
    """

    def __init__(self, engine: Engine) -> None:
        from shoal._runtime._native import core

        self.calls: list[tuple[Any, bool]] = []
        self.jobs: dict[int, Any] = {}
        if is_over(engine):
            return
        take_in(engine)
        for whose, _, queued in engine.client.open_outcomes():
            if isinstance(whose, core.Job):
                self.jobs[id(whose)] = whose
            else:
                self.calls.append((whose, queued == 0))
        for job in list(engine._jobs):
            self.jobs[id(job)] = job

    @property
    def waiting_calls(self) -> int:
        return sum(not begun for _, begun in self.calls)


def chunks_left(job: Any) -> int:
    """How many chunks of a map have no outcome. If the length of the input is unknown, only chunks
    of the items read so far count.
    """
    total, pulled, delivered, _, _, chunk = job.counts
    return int(-(-((pulled if total < 0 else total) - delivered) // chunk))


def waiting_chunks(engine: Engine, job: Any) -> int:
    """How many chunks of a map no worker has begun."""
    total, pulled, *_, chunk = job.counts
    items = 0 if total < 0 else total - pulled
    queued = 0
    for whose, _, units in engine.client.open_outcomes():
        if whose is job:
            queued += units
    return int(min(chunks_left(job), -(-items // chunk) + queued))


class QueueView:
    """A queue of the standard library's pool. Only its length is emulated."""

    def __init__(self, length: Callable[[], int]) -> None:
        self._length = length

    def qsize(self) -> int:
        return self._length()

    def empty(self) -> bool:
        return self._length() == 0

    def put(self, item: object, *arguments: object, **options: object) -> None:
        raise NotImplementedError(
            "this queue is a view of a pool of shoal's: tasks are sent by the pool's methods"
        )

    get = put

    def close(self) -> None:
        """Nothing to close."""

    @property
    def _reader(self) -> EndView:
        return EndView(self._length)

    _writer = _reader


class EndView:
    """An end of such a queue, with the methods of a Connection that do not read from it."""

    closed = False

    def __init__(self, length: Callable[[], int]) -> None:
        self._length = length

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Wait until the queue is not empty; False on timeout."""
        return wait_until(lambda: self._length() > 0, timeout)

    def close(self) -> None:
        """Nothing to close."""


def wait_until(holds: Callable[[], bool], timeout: float | None) -> bool:
    """Poll the condition every millisecond: the views have no event to wait for."""
    end = None if timeout is None else time.monotonic() + timeout
    while not holds():
        if end is not None and time.monotonic() >= end:
            return False
        time.sleep(0.001)
    return True


class MappingView:
    """A dictionary of the standard library's, recomputed on each access."""

    def __init__(self, make: Callable[[], dict[int, Any]]) -> None:
        self._make = make

    def __len__(self) -> int:
        return len(self._make())

    def __iter__(self) -> Iterator[int]:
        return iter(self._make())

    def __contains__(self, key: object) -> bool:
        return key in self._make()

    def __getitem__(self, key: int) -> Any:
        return self._make()[key]

    def get(self, key: int, default: Any = None) -> Any:
        return self._make().get(key, default)

    def keys(self) -> Any:
        return self._make().keys()

    def values(self) -> Any:
        return self._make().values()

    def items(self) -> Any:
        return self._make().items()

    def copy(self) -> dict[int, Any]:
        return self._make()

    def __eq__(self, other: object) -> bool:
        return self._make() == other

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self._make())
