# SPDX-License-Identifier: Apache-2.0
"""Coroutines that wait for a queue's descriptor: `Queue.aget` and `aput`.

An event loop allows one callback per descriptor, so all coroutines of a loop that wait for one end
of a queue share it. A wake-up wakes all of them: each tries again, and waits again if another was
faster. The threads that run the loops use it without a lock, because each uses only its own entry.
"""

from __future__ import annotations

import asyncio
import weakref


class Waiters:
    """The coroutines that wait for one end of one queue, by event loop."""

    def __init__(self) -> None:
        self._waiting: weakref.WeakKeyDictionary[
            asyncio.AbstractEventLoop, list[asyncio.Future[None]]
        ] = weakref.WeakKeyDictionary()

    async def wait(self, descriptor: int) -> None:
        """Wait until the descriptor is readable."""
        loop = asyncio.get_running_loop()
        waiting = self._waiting.setdefault(loop, [])
        future: asyncio.Future[None] = loop.create_future()
        if not waiting:
            loop.add_reader(descriptor, _wake, waiting)
        waiting.append(future)
        try:
            await future
        finally:
            waiting.remove(future)
            if not waiting:
                loop.remove_reader(descriptor)


def _wake(waiting: list[asyncio.Future[None]]) -> None:
    for future in waiting:
        if not future.done():
            future.set_result(None)
