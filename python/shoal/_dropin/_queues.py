# SPDX-License-Identifier: Apache-2.0
"""`multiprocessing.queues` on shared memory.

The bases of each class are the C type (whose methods are called), shoal's native class and, last,
the stock class (`_stock_classes.py`), so that `isinstance` holds for all and no stock code runs.
The behaviour is the standard library's: when `Queue.put` cannot pickle an object it prints the
error and does not raise, closing is local to the process, and queues can be pickled only for a
child that is being spawned. There is no feeder thread, so `join_thread` has nothing to wait for:
`put` writes to shared memory itself. Private attributes that programs read exist; `_reader` and
`_writer` are views of the queue.
Design: docs/design/queue.md
"""

from __future__ import annotations

import os
import sys
import time
import types
import weakref

from shoal._dropin import _stock_classes
from shoal._dropin._shared import Shared
from shoal._runtime._native import core
from shoal._shared import _queues

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


_SLICE = 0.25  # seconds


class _NoLock:
    """Replaces a stock queue's lock. Never waits, because shoal's queues need no lock."""

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        return True

    def release(self) -> None:
        pass

    __enter__ = acquire

    def __exit__(self, *error: object) -> None:
        pass


class _End:
    """A queue's `_reader` or `_writer`, with the methods of a Connection that programs use."""

    def __init__(self, queue: Any, end: int) -> None:
        self._queue = queue
        self._end = end
        self.readable = end == core.QUEUE_GET_END
        self.writable = end == core.QUEUE_PUT_END

    @property
    def closed(self) -> bool:
        return bool(self._queue._closed & self._end)

    def close(self) -> None:
        self._queue._closed |= self._end

    def fileno(self) -> int:
        """Readable when there is something to get."""
        self._check()
        descriptor: int = self._queue.fileno() if self.readable else self._queue._space_fileno()
        return descriptor

    def poll(self, timeout: float | None = 0.0) -> bool:
        from multiprocessing import connection

        self._check()
        end = None if timeout is None else time.monotonic() + timeout
        while core.Queue.empty(self._queue):
            if self._queue._look_after(core.QUEUE_GET_END):  # shut down: recv() does not wait
                return True
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                return False
            # In slices: fileno(), which `wait` calls, looks after the queue.
            part = _SLICE if left is None else min(left, _SLICE)
            connection.wait([self], part)  # type: ignore[list-item]
        return True

    def recv(self) -> Any:
        self._check()
        return core.Queue.get(self._queue)

    def send(self, obj: Any) -> None:
        self._check()
        core.Queue.put(self._queue, obj)

    def _check(self) -> None:
        if self.closed:
            raise OSError("handle is closed")


class _Ends(Shared):
    """The attributes that code written for the stock queues expects."""

    _rlock = _wlock = _NoLock()
    _closed: int

    @property
    def _reader(self) -> _End:
        return self._end(core.QUEUE_GET_END)

    @property
    def _writer(self) -> _End:
        return self._end(core.QUEUE_PUT_END)

    def _end(self, which: int) -> _End:
        """Returns the same object as long as it is referenced: callers compare it with what `wait`
        returns.
        """
        ends: Any = self.__dict__.setdefault("_ends", weakref.WeakValueDictionary())
        end: _End | None = ends.get(which)
        return ends.setdefault(which, _End(self, which)) if end is None else end

    def _poll(self, timeout: float | None = 0.0) -> bool:
        return self._reader.poll(timeout)

    def __getattr__(self, name: str) -> Any:
        """An attribute that only the stock class has: importing the stock module makes that class a
        base.
        """
        if "multiprocessing.queues" in sys.modules:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        import multiprocessing.queues  # noqa: F401

        return getattr(self, name)

    __repr__ = object.__repr__
    __class_getitem__: Any = classmethod(types.GenericAlias)  # Queue[int] in annotations


class SimpleQueue(_Ends, _queues.SimpleQueue):  # type: ignore[type-arg]
    """`multiprocessing.SimpleQueue` on shared memory."""

    def __new__(cls, *, ctx: Any = None) -> Any:
        return core.Queue.__new__(cls)

    def empty(self) -> bool:
        if self._closed & core.QUEUE_GET_END:
            self._raise_closed()
        return core.Queue.empty(self)

    def _raise_closed(self) -> None:
        raise OSError("handle is closed")


class Queue(_Ends, _queues.Queue):  # type: ignore[type-arg]
    """`multiprocessing.Queue` on shared memory."""

    _forgiving = True
    _thread = _jointhread = _close = None
    _joincancelled = _ignore_epipe = False
    _buffer: tuple[Any, ...] = ()

    def __new__(cls, maxsize: int = 0, *, ctx: Any = None) -> Any:
        return core.Queue.__new__(cls, maxsize, 0, 0, True, cls._joinable)

    def __init__(self, maxsize: int = 0, *, ctx: Any = None) -> None:
        super().__init__(ctx=ctx)
        self._opid = os.getpid()

    @property
    def _maxsize(self) -> int:
        return self.maxsize or 2**31 - 1

    def empty(self) -> bool:
        if self._closed == core.QUEUE_BOTH_ENDS and self._used:
            raise OSError("handle is closed")
        return core.Queue.empty(self)

    def join_thread(self) -> None:
        """Nothing to wait for: every object that was put is in shared memory."""
        assert self._closed, f"Queue {self!r} not closed"

    def cancel_join_thread(self) -> None:
        """Nothing to cancel: the exit of the process does not wait, and loses no objects."""

    def _raise_closed(self) -> None:
        raise ValueError(f"Queue {self!r} is closed")

    def _put_failed(self, error: Exception, obj: Any) -> None:
        """`put` could not pickle the object."""
        try:
            raise error
        except Exception as raised:
            # The stock class's method, or one that the program's subclass defines.
            self._on_queue_feeder_error(raised, obj)

    def _terminate_broken(self) -> None:
        self.close()


class JoinableQueue(Queue, _queues.JoinableQueue):  # type: ignore[type-arg]
    """`multiprocessing.JoinableQueue` on shared memory."""

    def join(self) -> None:  # type: ignore[override]
        self._join(None)


_stock_classes.follow(
    "multiprocessing.queues",
    (SimpleQueue, "SimpleQueue"),
    (Queue, "Queue"),
    (JoinableQueue, "JoinableQueue"),
)
