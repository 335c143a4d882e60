# SPDX-License-Identifier: Apache-2.0
"""shoal's exceptions. Each class also derives from the class that users of the standard library
catch.

    ShoalError
    +-- WorkerDied         also concurrent.futures.process.BrokenProcessPool (a RuntimeError)
    +-- TaskTimeout        also TimeoutError
    +-- RemoteError        replaces a task's exception that could not be sent or rebuilt
    +-- PoolClosed         also ValueError (as Pool raises) and RuntimeError (as executors do)
    +-- InitializerFailed  also BrokenProcessPool's base, RuntimeError
    +-- ForkedPool         also RuntimeError: a pool used in a forked child
    +-- MemoryExhausted    also MemoryError
    +-- CorruptArena       also RuntimeError
    +-- QueueShutDown      also queue.ShutDown (before 3.13: EOFError): the queue takes no more
    +-- ConsumerDied       also RuntimeError: objects of a JoinableQueue will never be processed
    +-- OwnerDied          also RuntimeError: the process that had a lock died

    OwnerDiedWarning       a RuntimeWarning: the same as OwnerDied, but as a warning

All pickle with their attributes, so that a task can pass on an exception of its own pool.

`WorkerDied` and `QueueShutDown` are made on first use: a base of the first is in
concurrent.futures.process, which takes 15 ms to import, and most programs never need them.
Module state: the two classes, each written once.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "ConsumerDied",
    "CorruptArena",
    "ForkedPool",
    "InitializerFailed",
    "MemoryExhausted",
    "OwnerDied",
    "OwnerDiedWarning",
    "PoolClosed",
    "QueueShutDown",
    "RemoteError",
    "ShoalError",
    "TaskTimeout",
    "WorkerDied",
]


class ShoalError(Exception):
    """The base class of the exceptions that shoal itself raises."""


class TaskTimeout(ShoalError, TimeoutError):
    """A task ran longer than its `timeout=` and was stopped.

    >>> import time, shoal
    >>> with shoal.Pool(1) as pool:
    ...     pool.apply(time.sleep, (60,), timeout=0.05)
    Traceback (most recent call last):
    shoal.errors.TaskTimeout: time.sleep(60) ran longer than its limit of 0.05 s and was stopped
    """


class PoolClosed(ShoalError, ValueError, RuntimeError):
    """The pool or executor takes no more tasks: it was closed, terminated or shut down.

    >>> import shoal
    >>> pool = shoal.Pool(1)
    >>> pool.terminate()
    >>> try:
    ...     pool.apply(abs, (-1,))
    ... except ValueError as error:
    ...     print(type(error).__name__)
    PoolClosed
    """


class InitializerFailed(ShoalError, RuntimeError):
    """The initializer, or the import of the main module, failed in each of several fresh workers;
    `__cause__` is the last error.
    """


class ForkedPool(ShoalError, RuntimeError):
    """A pool was used in a forked child. Its workers serve the parent; make a pool in the child."""


class MemoryExhausted(ShoalError, MemoryError):
    """The arena cannot grow. The message says how much was requested, how much is in use, and which
    limit was reached.
    """


class CorruptArena(ShoalError, RuntimeError):
    """Shared memory has contents that no shoal process writes; this process no longer trusts it."""


class ConsumerDied(ShoalError, RuntimeError):
    """`JoinableQueue.join` waited for processes that got objects and ended without `task_done`."""


class OwnerDied(ShoalError, RuntimeError):
    """The process that held the lock died, so the data that the lock protects may be half changed.
    The lock is now free, and the next thread that acquires it is not told again: acquire the lock
    and check the data.

    `pid` is the dead process, or 0 if it is unknown. Locks that were made with
    `on_owner_death="raise"` raise this; others issue an `OwnerDiedWarning`.

    >>> import os, shoal
    >>> def take(lock):
    ...     lock.acquire()
    ...     os._exit(0)
    >>> lock = shoal.Lock(on_owner_death="raise")
    >>> with shoal.Pool(1) as pool:
    ...     _ = pool.apply_async(take, (lock,)).wait()
    >>> try:
    ...     lock.acquire()
    ... except shoal.OwnerDied:
    ...     lock.acquire()
    True
    """

    def __init__(self, message: str, pid: int = 0) -> None:
        super().__init__(message, pid)
        self.pid = pid

    def __str__(self) -> str:
        return str(self.args[0])


class OwnerDiedWarning(RuntimeWarning):
    """A lock was taken over from a process that died: the data that the lock protects may be half
    changed.
    """


class RemoteError(ShoalError):
    """Replaces a task's exception that could not be sent, or could not be rebuilt here.

    `type_name` is the exception's qualified class name, `message` its text, `traceback_text` the
    traceback in the worker, `reason` why the exception itself could not be sent or rebuilt.
    """

    def __init__(
        self, type_name: str, message: str = "", traceback_text: str = "", reason: str = ""
    ) -> None:
        super().__init__(type_name, message, traceback_text, reason)
        self.type_name = type_name
        self.message = message
        self.traceback_text = traceback_text
        self.reason = reason

    def __str__(self) -> str:
        text = f"{self.type_name}: {self.message}" if self.message else self.type_name
        return f"{text}\n(a stand-in: {self.reason})" if self.reason else text


if TYPE_CHECKING:
    from concurrent.futures.process import BrokenProcessPool

    class QueueShutDown(ShoalError):
        """See `_make_queue_shut_down`."""

    class WorkerDied(ShoalError, BrokenProcessPool):
        """See `_make_worker_died`; written out here for type checkers."""

        pid: int | None
        signal: int | None
        exitcode: int | None
        peak_memory: int | None
        memory_limit_hit: bool
        task: str | None
        arguments: str | None

        def __init__(
            self,
            message: str = ...,
            *,
            pid: int | None = ...,
            signal: int | None = ...,
            exitcode: int | None = ...,
            peak_memory: int | None = ...,
            memory_limit_hit: bool = ...,
            task: str | None = ...,
            arguments: str | None = ...,
        ) -> None: ...


def _make_worker_died() -> type:
    from concurrent.futures.process import BrokenProcessPool

    class WorkerDied(ShoalError, BrokenProcessPool):
        """A worker process ended while it ran a task. The pool starts another worker.

        `pid`; `signal` (a number) or `exitcode`, of which the other is None; `peak_memory` in
        bytes; `memory_limit_hit`: whether a memory limit killed it; `task`: the function's name;
        `arguments`: a short text of its arguments. An unknown value is None. With `retries=` it is
        raised only if the worker of the last attempt died too.

        >>> import os, shoal
        >>> with shoal.Pool(1) as pool:
        ...     try:
        ...         pool.apply(os._exit, (3,))
        ...     except shoal.WorkerDied as error:
        ...         print(error.exitcode, error.signal, error.task, error.arguments)
        3 None posix._exit 3
        """

        def __init__(
            self,
            message: str = "",
            *,
            pid: int | None = None,
            signal: int | None = None,
            exitcode: int | None = None,
            peak_memory: int | None = None,
            memory_limit_hit: bool = False,
            task: str | None = None,
            arguments: str | None = None,
        ) -> None:
            super().__init__(message)
            self.pid = pid
            self.signal = signal
            self.exitcode = exitcode
            self.peak_memory = peak_memory
            self.memory_limit_hit = memory_limit_hit
            self.task = task
            self.arguments = arguments

    WorkerDied.__qualname__ = "WorkerDied"
    return WorkerDied


def _make_queue_shut_down() -> type:
    import queue

    class QueueShutDown(ShoalError, getattr(queue, "ShutDown", EOFError)):  # type: ignore[misc]
        """The queue was shut down: no object can be put any more, and all its objects were got."""

    QueueShutDown.__qualname__ = "QueueShutDown"
    return QueueShutDown


_MAKERS = {"QueueShutDown": _make_queue_shut_down, "WorkerDied": _make_worker_died}


def __getattr__(name: str) -> Any:
    maker = _MAKERS.get(name)
    if maker is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Two threads may both get here; with setdefault both return the first thread's class.
    return globals().setdefault(name, maker())
