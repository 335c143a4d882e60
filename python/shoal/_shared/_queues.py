# SPDX-License-Identifier: Apache-2.0
"""Queues in shared memory: `shoal.Queue`, `shoal.JoinableQueue`, `shoal.SimpleQueue`.

Thin classes over the C type `shoal._core.Queue`, whose methods programs call directly. They may be
made at any time and passed to any process of the session (as arguments, through queues, as
results). The last process that has a queue frees it, with its contents. There is no thread, no
pipe, and nothing that waits at exit.
Guarantees and limits: docs/design/queue.md
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
        """Allows `Queue[int]` in annotations without the cost of importing `typing`."""

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

    _forgiving = False  # True: put() prints pickling errors instead of raising (the drop-in)
    _joinable = False  # True: task_done() must be called for each object

    def __new__(cls) -> Self:
        return core.Queue.__new__(cls)

    def close(self) -> None:
        """Allow no more put and get in this process. Other processes and the contents are not
        affected.
        """
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

    `put` encodes the object immediately. So an object that cannot be pickled raises there, later
    changes to the object have no effect, and other processes can get it whatever happens to this
    process. `maxbytes` counts memory as it is allocated; an object that alone is larger is accepted
    when the queue is empty. Without a limit `put` never waits, and raises MemoryError when the
    memory is used up.

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

    _waiters: tuple[Waiters, Waiters] | None = None  # those for objects, those for free space

    def __new__(cls, maxsize: int = 0, maxbytes: int = 0) -> Self:
        return core.Queue.__new__(cls, maxsize, maxbytes, 0, cls._forgiving, cls._joinable)

    def shutdown(self) -> None:
        """Let no process put more objects. The remaining objects can be got; then `get` raises too.

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
        """`get` for asyncio: the event loop is not blocked. Cancelling it loses no object.

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
        """`put` for asyncio: a full queue does not block the event loop. If it is cancelled,
        nothing was put.
        """
        pause = 0.0
        while True:
            try:
                return self.put_nowait(obj)
            except queue.Full:
                waiters = self._two_waiters()[1]
                if self.maxbytes and self._room_seen():  # room for something, but not for this
                    pause = await waiters.pause(pause)
                else:
                    await waiters.wait(self._space_fileno(), self._room_seen)

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
    """A queue whose `join` waits until all objects that were put into it have been processed.

    Call `task_done` in the process that got the object. If a process ends without having called
    `task_done` for all objects that it got, `join` raises `ConsumerDied` (once) instead of waiting
    for ever. If another process calls `task_done` than the one that got the object, `join` cannot
    detect this, and waits.

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
        """Mark an object that was got as processed. ValueError if called more often than `put`."""
        self._task_done()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until `task_done` was called for all objects that were put; False on timeout.

        Raises ConsumerDied if only objects are left that dead processes had got.
        """
        return self._join(timeout)


def _queue_at(handle: int, cls: Any) -> Any:
    return core.Queue.__new__(cls, handle=handle, forgiving=cls._forgiving, joinable=cls._joinable)


_codec.connect_pickler()
_children.carry_session()
