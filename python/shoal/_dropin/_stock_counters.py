# SPDX-License-Identifier: Apache-2.0
"""What is open in a pool, counted as the standard library counts it.

Progress bars, back-pressure and "kill the pool" recipes read private attributes of its pools,
executors and results. `_pool_view`, `_executor_view` and `_result_view` answer them with what
is here: views, which look when they are asked. They are imported when a program asks for the first
such name, and cost nothing before.

Who asks has waited for nothing, so whoever asks also takes in the outcomes that have arrived: a
loop that only looks at a counter sees it fall. Where a collector does that, it is left to it.
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
    """The outcomes that have arrived, as `ready()` does."""
    if not (engine.forked or engine._agent.ended or engine.collected_for):
        engine.client.collect(0)
        engine.feed_jobs()


def is_over(engine: Engine) -> bool:
    return bool(engine.forked or engine._agent.ended)


def is_open(result: Any) -> bool:
    """Whether outcomes of a result of the drop-in's are still to come."""
    if result.viewed_as == "iterator":
        return not (result._work.done or is_over(result._engine))
    return bool(result._state == _results._PENDING)


class Open:
    """What an engine has open now.

    `calls`: for each call without an outcome, who is told of it, and whether a worker has begun it.
    `jobs`: the core's jobs of maps without all outcomes, by identity.
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
    """How many chunks of a map have no outcome; of an input of unknown length, of what is read."""
    total, pulled, delivered, _, _, chunk = job.counts
    return int(-(-((pulled if total < 0 else total) - delivered) // chunk))


def waiting_chunks(engine: Engine, job: Any) -> int:
    """How many of them no worker has begun."""
    total, pulled, *_, chunk = job.counts
    items = 0 if total < 0 else total - pulled
    queued = 0
    for whose, _, units in engine.client.open_outcomes():
        if whose is job:
            queued += units
    return int(min(chunks_left(job), -(-items // chunk) + queued))


class QueueView:
    """A queue of the standard library's pool, of which only the length is known."""

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
        """Nothing is open."""

    @property
    def _reader(self) -> EndView:
        return EndView(self._length)

    _writer = _reader


class EndView:
    """Such a queue's end, as much of a Connection as can be asked without reading it."""

    closed = False

    def __init__(self, length: Callable[[], int]) -> None:
        self._length = length

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Whether the queue holds something, waiting as long for it."""
        return wait_until(lambda: self._length() > 0, timeout)

    def close(self) -> None:
        """Nothing is open."""


def wait_until(holds: Callable[[], bool], timeout: float | None) -> bool:
    """Look every millisecond; the views have nothing else to wait for."""
    end = None if timeout is None else time.monotonic() + timeout
    while not holds():
        if end is not None and time.monotonic() >= end:
            return False
        time.sleep(0.001)
    return True


class MappingView:
    """A dictionary of the standard library's, made anew each time it is asked."""

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
