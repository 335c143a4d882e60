# SPDX-License-Identifier: Apache-2.0
"""Coroutines that wait for a queue's descriptor: `Queue.aget` and `aput`.

An event loop allows one callback per descriptor, so all coroutines of a loop that wait for one end
of a queue share it. A wake-up wakes all of them: each tries again, and waits again if another was
faster. The threads that run the loops use it without a lock, because each uses only its own entry.

A process that puts an object may be unable to make the descriptor readable (no file may be opened
any more), or may be killed before it does. So every 250 ms the loop looks after the queue, as every
other wait of shoal does.

The descriptor for space says that there is room for one byte. An object that needs more room (in a
queue with `maxbytes`) cannot wait for it: its coroutine tries again after growing pauses.
"""

from __future__ import annotations

import asyncio
import weakref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_LOOK_EVERY = 0.25  # seconds
_FIRST_PAUSE = 0.001  # seconds


class Waiters:
    """The coroutines that wait for one end of one queue, by event loop."""

    def __init__(self) -> None:
        self._waiting: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Waiting] = (
            weakref.WeakKeyDictionary()
        )

    async def wait(self, descriptor: int, look: Callable[[], bool]) -> None:
        """Wait until the descriptor is readable, or `look` says that this end is ready."""
        loop = asyncio.get_running_loop()
        waiting = self._waiting.get(loop)
        if waiting is None:
            waiting = self._waiting[loop] = _Waiting()
        future: asyncio.Future[None] = loop.create_future()
        if not waiting.futures:
            waiting.begin(loop, descriptor, look)
        waiting.futures.append(future)
        try:
            await future
        finally:
            waiting.futures.remove(future)
            if not waiting.futures:
                waiting.end(loop)

    async def pause(self, seconds: float) -> float:
        """Wait without the descriptor. Returns the next pause."""
        await asyncio.sleep(seconds)
        return min(max(2 * seconds, _FIRST_PAUSE), _LOOK_EVERY)


class _Waiting:
    """The waiting coroutines of one event loop, and what wakes them. References the loop only while
    a coroutine waits.
    """

    def __init__(self) -> None:
        self.futures: list[asyncio.Future[None]] = []
        self._descriptor = -1
        self._look: Callable[[], bool] | None = None
        self._ticks = False  # a timer runs; it goes on, since the next wait may begin at once

    def begin(
        self, loop: asyncio.AbstractEventLoop, descriptor: int, look: Callable[[], bool]
    ) -> None:
        loop.add_reader(descriptor, self._wake)
        self._descriptor = descriptor
        self._look = look
        if not self._ticks:
            self._ticks = True
            loop.call_later(_LOOK_EVERY, self._tick, loop)

    def end(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.remove_reader(self._descriptor)
        self._look = None

    def _wake(self) -> None:
        for future in self.futures:
            if not future.done():
                future.set_result(None)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._ticks = self._look is not None
        if self._look is None:
            return
        loop.call_later(_LOOK_EVERY, self._tick, loop)
        try:
            ready = self._look()
        except Exception:
            ready = True  # each coroutine looks, and raises it
        if ready:
            self._wake()
