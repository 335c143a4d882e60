# SPDX-License-Identifier: Apache-2.0
"""What the asynchronous methods of `Pool` return."""

from __future__ import annotations

import multiprocessing
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal._engine import Engine

_PENDING, _OK, _FAILED = 0, 1, 2


def _call(callback: Callable[[Any], object], value: Any) -> None:
    """A callback that raises harms nobody: its traceback is printed, as threads do."""
    try:
        callback(value)
    except BaseException:
        print(f"shoal: the callback {callback!r} raised:", file=sys.stderr)
        sys.excepthook(*sys.exc_info())


# An instance of the standard class where that class is in use at all: importing it for its own sake
# would take a third of the time that a pool takes to start.
_Base: type = getattr(sys.modules.get("multiprocessing.pool"), "AsyncResult", object)


class _Waitable(_Base):  # type: ignore[misc]
    """The part that calls and maps share."""

    _engine: Engine
    _state: int
    _value: Any

    def get(self, timeout: float | None = None) -> Any:
        """The result; raises the task's exception, or `multiprocessing.TimeoutError` after
        `timeout` seconds.
        """
        self.wait(timeout)
        if self._state == _PENDING:
            raise multiprocessing.TimeoutError
        if self._state == _FAILED:
            raise self._value
        return self._value

    def successful(self) -> bool:
        """Whether it ended without an exception. Raises ValueError while it is not ready."""
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return self._state == _OK

    def __del__(self) -> None:
        pass


class AsyncResult(_Waitable):
    """The outcome of `Pool.apply_async`.

    >>> import shoal
    >>> with shoal.Pool(1) as pool:
    ...     pool.apply_async(pow, (2, 5)).get()
    32
    """

    def __init__(
        self,
        engine: Engine,
        callback: Callable[[Any], object] | None,
        error_callback: Callable[[BaseException], object] | None,
    ) -> None:
        self._engine = engine
        self._callback = callback
        self._error_callback = error_callback
        self._state = _PENDING
        self._value = None
        self._ticket = 0

    def _launched(self, ticket: int) -> None:
        self._ticket = ticket

    def _deliver(self, ok: bool, value: Any) -> None:
        self._value = value
        self._state = _OK if ok else _FAILED
        callback = self._callback if ok else self._error_callback
        if callback is not None:
            _call(callback, value)

    def ready(self) -> bool:
        """Whether the outcome is known. Never waits."""
        if self._state == _PENDING:
            self._engine.check_usable()
            if not self._engine._agent.ended:
                self._engine.client.collect(0)
        return self._state != _PENDING

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the outcome is known, or `timeout` seconds have passed."""
        if self._state != _PENDING:
            return
        self._engine.check_usable()
        deadline = None if timeout is None else time.monotonic() + max(0.0, timeout)
        while self._state == _PENDING:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not self._engine.client.wait(self._ticket, left):
                return

    def cancel(self) -> bool:
        """Withdraw the task, or stop it when it runs: interrupted first, killed after a grace
        period.

        True unless it had ended. `get()` then raises `concurrent.futures.CancelledError`; a task
        that ends just before it is stopped keeps its result.
        """
        if self.ready():
            return False
        if self._engine.client.cancel(self._ticket) == 2:
            self._engine._agent.ring()
        return True


class MapResult(_Waitable):
    """The outcome of `Pool.map_async` and `starmap_async`."""

    def __init__(
        self,
        engine: Engine,
        callback: Callable[[Any], object] | None,
        error_callback: Callable[[BaseException], object] | None,
    ) -> None:
        self._engine = engine
        self._callback = callback
        self._error_callback = error_callback
        self._state = _PENDING
        self._value = None
        self._job: Any = None

    def _finished(self) -> None:
        """All outcomes are in; called once, by whoever collected the last one."""
        job = self._job
        if job is None or self._state != _PENDING:
            return
        try:
            self._value, self._state = job.results(), _OK
        except BaseException as error:
            self._value, self._state = error, _FAILED
        callback = self._callback if self._state == _OK else self._error_callback
        if callback is not None:
            _call(callback, self._value)

    def ready(self) -> bool:
        """Whether all outcomes are known. Never waits."""
        if self._state == _PENDING:
            self._engine.check_usable()
            if not self._engine._agent.ended:
                self._engine.client.collect(0)
                self._engine.feed_jobs()
        return self._state != _PENDING

    def wait(self, timeout: float | None = None) -> None:
        """Wait until all outcomes are known, or `timeout` seconds have passed."""
        if self._state != _PENDING:
            return
        self._engine.check_usable()
        if self._job.wait(timeout) and self._state == _PENDING:
            self._finished()

    def cancel(self) -> bool:
        """Withdraw what has not begun and stop what runs; `get()` then raises CancelledError."""
        if self.ready():
            return False
        self._job.cancel()
        self._engine._agent.ring()
        return True


class ImapIterator:
    """What `Pool.imap` and `imap_unordered` return: results as they are asked for."""

    def __init__(self, engine: Engine, job: Any) -> None:
        self._engine = engine
        self._job = job
        self._next = job.next

    def __iter__(self) -> ImapIterator:
        return self

    def next(self, timeout: float | None = None) -> Any:
        """The next result; raises `multiprocessing.TimeoutError` after `timeout` seconds."""
        return self._next(timeout, multiprocessing.TimeoutError)

    def __next__(self) -> Any:
        return self._next(None, multiprocessing.TimeoutError)
