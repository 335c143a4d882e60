# SPDX-License-Identifier: Apache-2.0
"""Queues in shared memory: `shoal.Queue`, `shoal.JoinableQueue`, `shoal.SimpleQueue`.

Thin classes over the C type `shoal._core.Queue`, whose methods are the ones that are called. They
may be made at any time, passed to any process of the session (as arguments, through queues, as
results), and are freed, with what is in them, by the last process that has them. No thread, no
pipe, nothing that waits at exit.
What they promise and what not: docs/design/queue.md
"""

from __future__ import annotations

import queue
import types

from shoal._pickling import _codec
from shoal._runtime import _children, _session
from shoal._runtime._native import core
from shoal._runtime._public import public
from shoal._shared._closing import Closing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Generic, TypeVar

    from typing_extensions import Self

    from shoal._shared._queue_asyncio import Waiters

    T = TypeVar("T")

    class _Of(Generic[T]): ...

else:
    T = "T"

    class _Of:
        """Has it that `Queue[int]` may be written, without the cost of importing `typing`."""

        __slots__ = ()
        __class_getitem__ = classmethod(types.GenericAlias)


__all__ = ["JoinableQueue", "Queue", "SimpleQueue"]

Empty, Full = queue.Empty, queue.Full  # the core raises these


@public
class SimpleQueue(core.Queue, Closing, _Of[T]):
    """A queue between processes and threads that is never full.

    >>> import shoal
    >>> queue = shoal.SimpleQueue()
    >>> queue.put({"answer": 42})
    >>> queue.qsize(), queue.get(), queue.empty()
    (1, {'answer': 42}, True)
    """

    _forgiving = False  # the drop-in's put() prints what cannot be pickled
    _joinable = False  # what is got is to be marked by task_done()

    def __new__(cls) -> Self:
        return core.Queue.__new__(cls)

    def close(self) -> None:
        """Put and get nothing more in this process. Others go on; what is in it stays."""
        self._closed = 3

    def _raise_closed(self) -> None:
        raise ValueError(f"{self!r} is closed")

    def __reduce__(self) -> tuple[Any, ...]:
        return _session.reduce_shared(_queue_at, self, type(self))

    def __repr__(self) -> str:
        limit = f" of {self.maxsize}" if self.maxsize else ""
        closed = ", closed here" if self._closed == 3 else ""
        return f"<shoal.{type(self).__name__} with {self.qsize()}{limit}{closed}>"


@public
class Queue(SimpleQueue[T]):
    """A queue between processes and threads, bounded by objects or bytes or not at all.

    `put` encodes the object there and then: what cannot be pickled raises, later changes to it are
    not seen, and what was put is there for the others whatever becomes of this process. `maxbytes`
    counts memory as it is allocated; an object that alone is larger is let in when the queue is
    empty. Where there is no limit, `put` never waits: MemoryError when the memory is used up.

    >>> import shoal
    >>> queue = shoal.Queue(maxsize=2)
    >>> queue.put_many("abc", block=False)
    2
    >>> queue.full(), queue.get_many(10)
    (True, ['a', 'b'])
    >>> queue.get(timeout=0.01)
    Traceback (most recent call last):
    _queue.Empty
    """

    _waiters: tuple[Waiters, Waiters] | None = None  # for objects, for room

    def __new__(cls, maxsize: int = 0, maxbytes: int = 0) -> Self:
        return core.Queue.__new__(cls, maxsize, maxbytes, 0, cls._forgiving, cls._joinable)

    def shutdown(self) -> None:
        """Let no process put anything more. What is in it can be got, then `get` raises too.

        >>> import shoal
        >>> queue = shoal.Queue()
        >>> queue.put(1)
        >>> queue.shutdown()
        >>> queue.get()
        1
        >>> queue.get()
        Traceback (most recent call last):
        shoal.errors.QueueShutDown: <shoal.Queue with 0> was shut down
        """
        self._shutdown()

    async def aget(self) -> T:
        """`get` for asyncio: the event loop goes on meanwhile. Cancelling it loses nothing.

        >>> import asyncio, shoal
        >>> async def pass_on():
        ...     queue = shoal.Queue()
        ...     await queue.aput("here")
        ...     return await queue.aget()
        >>> asyncio.run(pass_on())
        'here'
        """
        while True:
            try:
                return self.get_nowait()  # type: ignore[no-any-return]
            except queue.Empty:
                await self._two_waiters()[0].wait(self.fileno(), self._items_seen)

    async def aput(self, obj: T) -> None:
        """`put` for asyncio: the event loop goes on while the queue is full. If it is cancelled,
        nothing was put.
        """
        while True:
            try:
                return self.put_nowait(obj)
            except queue.Full:
                await self._two_waiters()[1].wait(self._space_fileno(), self._room_seen)

    def _items_seen(self) -> bool:
        return self._look_after(core.QUEUE_GET_END)

    def _room_seen(self) -> bool:
        return self._look_after(core.QUEUE_PUT_END)

    def _two_waiters(self) -> tuple[Waiters, Waiters]:
        if self._waiters is None:
            from shoal._shared._queue_asyncio import Waiters

            self._waiters = Waiters(), Waiters()
        return self._waiters


@public
class JoinableQueue(Queue[T]):
    """A queue that knows when all that was put into it has been dealt with.

    Call `task_done` in the process that got the object. If a process ends with objects that it has
    got and not marked, `join` raises `ConsumerDied` (once) instead of waiting for ever. Where other
    processes call `task_done` for those that got them, `join` cannot know, and waits.

    >>> import shoal
    >>> queue = shoal.JoinableQueue()
    >>> queue.put("work")
    >>> queue.join(timeout=0.01)
    False
    >>> queue.get(), queue.task_done(), queue.join()
    ('work', None, True)
    """

    _joinable = True

    def task_done(self) -> None:
        """Say that an object that was got has been dealt with. ValueError: more than were put."""
        self._task_done()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until `task_done` was called for all that was put; whether it was so in time.

        ConsumerDied: all others are done, and these never will be.
        """
        return self._join(timeout)


def _queue_at(handle: int, cls: Any) -> Any:
    return core.Queue.__new__(cls, handle=handle, forgiving=cls._forgiving, joinable=cls._joinable)


_codec.connect_pickler()
_children.carry_session()
