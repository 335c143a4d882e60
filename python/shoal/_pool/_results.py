# SPDX-License-Identifier: Apache-2.0
"""What the asynchronous methods of `Pool` return."""

from __future__ import annotations

import multiprocessing
import sys
import threading
import time

from shoal._runtime import _import_hook, _locks
from shoal._runtime._native import core
from shoal._runtime._public import public

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from shoal._pool._engine import Engine

_PENDING, _OK, _FAILED = 0, 1, 2


def _call(callback: Callable[[Any], object], value: Any) -> None:
    """Call it. If it raises, only its traceback is printed, as for a thread."""
    try:
        callback(value)
    except BaseException as error:
        main = threading.current_thread() is threading.main_thread()
        if main and isinstance(error, KeyboardInterrupt):
            raise  # Ctrl-C came during the callback; the caller who collects gets it
        print(f"shoal: the callback {callback!r} raised:", file=sys.stderr)
        sys.excepthook(*sys.exc_info())


class _Result:
    """Base class of the results of calls and of maps: states, callbacks, waiting."""

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
        self._value: Any = None

    def _collect(self) -> None:
        """Process the outcomes that have arrived, without waiting."""
        raise NotImplementedError

    def _wait_once(self, left: float | None) -> bool:
        """Wait for outcomes, `left` seconds at most; False on timeout."""
        raise NotImplementedError

    def _settle(self, ok: bool, value: Any) -> None:
        """Set the outcome. The callback runs once, and the result becomes ready only after the
        callback has returned, as in the standard library.
        """
        callback: Callable[[Any], object] | None
        callback = self._callback if ok else self._error_callback
        self._callback = self._error_callback = None
        self._value = value
        try:
            if callback is not None:
                _call(callback, value)
        finally:
            self._state = _OK if ok else _FAILED

    def ready(self) -> bool:
        """Whether the outcome is known. Never waits, and leaves callbacks to the collector thread
        if there is one.
        """
        if self._state == _PENDING:
            engine = self._engine
            engine.check_usable()
            if not engine._agent.ended and not engine.collected_for:
                self._collect()
        return self._state != _PENDING

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the outcome is known, or `timeout` seconds have passed."""
        if self._state != _PENDING:
            return
        self._engine.check_usable()
        deadline = None if timeout is None else time.monotonic() + max(0.0, timeout)
        while self._state == _PENDING:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not self._wait_once(left):
                return

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
        """Whether the result is not an exception. Raises ValueError while it is not ready."""
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return self._state == _OK

    def __del__(self) -> None:
        """Overrides the `__del__` of the standard class, which must not run for shoal's results."""


@public
class AsyncResult(_Result):
    """The outcome of `Pool.apply_async`; an instance of `multiprocessing.pool.AsyncResult` too.

    >>> import shoal
    >>> with shoal.Pool(1) as pool:
    ...     pool.apply_async(pow, (2, 5)).get()
    32
    """

    # ---- Told by the core: it is a Sink ----------------------------------------------------------

    _ticket = 0

    def _launched(self, ticket: int) -> None:
        self._ticket = ticket

    def _deliver(self, ok: bool, value: Any) -> None:
        if self._state == _PENDING:
            self._settle(ok, value)

    # ---- Asked by users --------------------------------------------------------------------------

    def _collect(self) -> None:
        self._engine.client.collect(0)

    def _wait_once(self, left: float | None) -> bool:
        if not self._engine.client.wait(self._ticket, left):
            return False
        gone = self._engine.client.gone
        if self._state == _PENDING:
            if gone:
                raise self._engine.no_outcome()
            if left == 0:
                return False
            time.sleep(0.001)  # another thread ends the pool, or runs the callback
        return True

    def cancel(self) -> bool:
        """Withdraw the task, or stop it if it runs: the task is interrupted, and its worker is
        killed after a grace period.

        Returns True unless the task had ended. `get()` then raises
        `concurrent.futures.CancelledError`; a task that ends just before it is stopped keeps its
        result.
        """
        if self.ready():
            return False
        answer = self._engine.client.cancel(self._ticket)
        if answer == core.CANCEL_RUNNING:
            self._engine._agent.ring()
        return bool(answer != core.CANCEL_TOO_LATE)


@public
class MapResult(_Result):
    """The outcome of `Pool.map_async` and `starmap_async`; an instance of
    `multiprocessing.pool.AsyncResult` too.

    >>> import shoal
    >>> with shoal.Pool(1) as pool:
    ...     pool.map_async(abs, [-1, 2]).get(timeout=60)
    [1, 2]
    """

    def __init__(
        self,
        engine: Engine,
        callback: Callable[[Any], object] | None,
        error_callback: Callable[[BaseException], object] | None,
    ) -> None:
        super().__init__(engine, callback, error_callback)
        self._work: Any = None  # core.Job
        self._finishing = _locks.Lock()

    def _finished(self) -> None:
        """All outcomes have arrived. Called by the thread that collected the last one, again if a
        signal handler raised here, and by a thread that waits for a pool that has ended.
        """
        if self._work is not None:
            with self._finishing:
                if self._state == _PENDING:
                    self._finish()

    def _finish(self) -> None:
        value = self._work.error
        ok = value is None
        if ok:
            try:
                value = self._work.results()
            except Exception as error:  # the pool has ended
                value, ok = error, False
        self._settle(ok, value)

    def _collect(self) -> None:
        self._engine.client.collect(0)
        self._engine.feed_jobs()

    def _wait_once(self, left: float | None) -> bool:
        if not self._work.wait(left):
            return False
        if not self._finishing.locked():
            self._finished()
        elif left == 0:  # its callback runs in another thread
            return False
        else:
            time.sleep(0.001)
        return True

    def cancel(self) -> bool:
        """Withdraw the tasks that have not begun and stop the running ones; `get()` then raises
        CancelledError.
        """
        if self.ready():
            return False
        self._work.cancel()
        self._engine._agent.ring()
        return True


@public
class IMapIterator:
    """The iterator over results that `Pool.imap` and `imap_unordered` return. If both the iterator
    and its pool are dropped before its end, the rest of the work is cancelled.

    >>> import shoal
    >>> with shoal.Pool(1) as pool:
    ...     results = pool.imap(len, ["a", "bb"])
    ...     next(results), results.next(timeout=60)
    (1, 2)
    """

    def __init__(self, engine: Engine, work: Any) -> None:
        self._engine = engine
        self._work = work  # core.Job
        self._next = work.next

    def __iter__(self) -> IMapIterator:
        return self

    def next(self, timeout: float | None = None) -> Any:
        """The next result. Raises `multiprocessing.TimeoutError` after `timeout` seconds; it can
        then be called again.
        """
        return self._next(timeout, multiprocessing.TimeoutError)

    def __next__(self) -> Any:
        return self._next(None, multiprocessing.TimeoutError)

    def __del__(self) -> None:
        if not self._work.exhausted:
            self._engine.not_fetched(self._work)


# Results become instances of the standard class when the program imports it. Importing it here
# would take a third of the time that a pool takes to start.
_import_hook.follow(
    "multiprocessing.pool", (AsyncResult, "AsyncResult"), (MapResult, "AsyncResult")
)
