# SPDX-License-Identifier: Apache-2.0
"""`shoal.Future`: a `concurrent.futures.Future` that costs little until its condition is used.

The condition variable of the base class is made on its first use: by `wait`, `as_completed`,
`add_done_callback` or asyncio. Before that, the thread that calls `result()` collects results
itself. After that, the engine's collector thread does.

The state is written while holding the condition if there is one, and otherwise while holding
`_making`, the lock under which conditions are made. So the state cannot change while a thread
holds the condition, which `wait` and `as_completed` require.
"""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import CancelledError, _base

from shoal._runtime import _locks
from shoal._runtime._native import core
from shoal._runtime._public import public

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from shoal._pool._engine import Engine

_PENDING, _FINISHED = _base.PENDING, _base.FINISHED
_CANCELLED = _base.CANCELLED_AND_NOTIFIED
_SLICE = 0.1  # seconds between a waiter's checks that the collector still runs
# Reentrant: a signal handler may cancel a future while this thread settles another.
_making = _locks.RLock()
_locks.renew_in_children(sys.modules[__name__], "_making", _locks.RLock)


@public
class Future(_base.Future):  # type: ignore[type-arg]
    """The outcome of `Executor.submit`.

    `cancel()` also stops a running task: the task is interrupted, and its worker is killed after a
    grace period. The future is cancelled immediately; a result that the task still returns is
    dropped.

    Unless `wait`, `as_completed`, a callback or asyncio is used, no background thread serves the
    future: the thread that calls `result()` collects results itself.

    >>> import time, shoal
    >>> with shoal.Executor(1) as executor:
    ...     future = executor.submit(time.sleep, 60)
    ...     future.cancel(), future.cancelled()
    (True, True)
    """

    _lazy_condition: threading.Condition | None = None
    _exception: BaseException | None = None
    _result: Any = None
    _ticket = 0

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._state = _PENDING
        self._waiters: list[Any] = []
        self._done_callbacks: list[Callable[[Any], object]] = []

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]
        condition = self._lazy_condition
        if condition is None:
            with _making:
                condition = self._lazy_condition
                if condition is None:
                    condition = self._lazy_condition = threading.Condition()
            if self._state == _PENDING:
                self._engine.need_collector()
        return condition

    # ---- Told by the core: it is a Sink ----------------------------------------------------------

    def _launched(self, ticket: int) -> None:
        self._ticket = ticket

    def _deliver(self, ok: bool, value: Any) -> None:
        if self._tell(ok, value):
            with self._engine.telling():
                self._invoke_callbacks()  # type: ignore[attr-defined]

    def _tell(self, ok: bool, value: Any) -> bool:
        """Set the outcome and wake the waiters. Returns whether there are callbacks to run."""
        with _making:
            condition = self._lazy_condition
            if condition is None:
                self._settle(ok, value)
                return False
        with condition:
            if not self._settle(ok, value):
                return False
            for waiter in self._waiters:
                if self._state == _CANCELLED:
                    waiter.add_cancelled(self)
                elif self._exception is not None:
                    waiter.add_exception(self)
                else:
                    waiter.add_result(self)
            condition.notify_all()
        return bool(self._done_callbacks)

    def _settle(self, ok: bool, value: Any) -> bool:
        """Set the outcome, unless there is one already (a cancelled task may still return)."""
        # After each `if self._state` there is no call and no jump until the state is stored. So no
        # signal handler runs in between, which might cancel this future.
        if ok:
            if self._state == _PENDING:
                self._result = value
                self._state = _FINISHED
                return True
        elif isinstance(value, CancelledError):
            if self._state == _PENDING:
                self._state = _CANCELLED
                return True
        elif self._state == _PENDING:
            self._exception = value
            self._state = _FINISHED
            return True
        return False

    # ---- Asked by users --------------------------------------------------------------------------

    def _wait(self, timeout: float | None) -> None:
        """Collect until this future is done; raises TimeoutError."""
        engine = self._engine
        deadline = None if timeout is None else time.monotonic() + max(0.0, timeout)
        while self._state == _PENDING:
            engine.check_usable()
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if self._lazy_condition is not None and engine.collected_for:
                # The collector runs callbacks and wakes waiters. This thread must not collect: it
                # would run users' callbacks under locks that its caller may hold.
                with self._lazy_condition:
                    if self._state == _PENDING:
                        self._lazy_condition.wait(_SLICE if left is None else min(left, _SLICE))
                if self._state == _PENDING and left is not None and left <= _SLICE:
                    raise _base.TimeoutError
                continue
            told = engine.client.wait(self._ticket, left)
            gone = engine.client.gone
            if self._state != _PENDING:
                return
            if gone:
                raise engine.no_outcome()
            if not told or left == 0:
                raise _base.TimeoutError
            time.sleep(0.001)  # another thread is about to tell this future

    def result(self, timeout: float | None = None) -> Any:
        """The task's result; raises its exception, CancelledError, or TimeoutError after `timeout`
        seconds.
        """
        if self._state == _PENDING:
            self._wait(timeout)
        if self._state == _CANCELLED:
            raise CancelledError
        if self._exception is not None:
            try:
                raise self._exception
            finally:
                self = None  # type: ignore[assignment]  # breaks a reference cycle with the traceback
        return self._result

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The task's exception or None; waits like `result`."""
        if self._state == _PENDING:
            self._wait(timeout)
        if self._state == _CANCELLED:
            raise CancelledError
        return self._exception

    def done(self) -> bool:
        """Whether the outcome is known. Never waits."""
        engine = self._engine
        if self._state == _PENDING and not engine._agent.ended and not engine.collected_for:
            engine.client.collect(0)
        return self._state != _PENDING

    def running(self) -> bool:
        """Whether a worker is running the task."""
        if self.done():
            return False
        return bool(self._engine.client.state(self._ticket) == "running")

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._state == _CANCELLED

    def cancel(self) -> bool:
        """Withdraw the task, or stop it if it runs. False if it has ended."""
        if self._state == _CANCELLED:
            return True
        if self.done():
            return False
        client = self._engine.client
        stops = self._stops_running()
        answer = client.cancel(self._ticket) if stops else client.withdraw(self._ticket)
        if answer == core.CANCEL_TOO_LATE and self._state != _PENDING:
            return self._state == _CANCELLED
        if answer == core.CANCEL_RUNNING:
            if not stops:
                return False
            self._engine._agent.ring()
        if self._tell(False, CancelledError()):
            self._invoke_callbacks()  # type: ignore[attr-defined]
        return self._state == _CANCELLED

    def _stops_running(self) -> bool:
        return True

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        """Call `fn(future)` when the future is done: in the collector thread, or in the calling
        thread if it is done already.
        """
        with self._condition:
            if self._state == _PENDING:
                self._done_callbacks.append(fn)
                return
        try:
            fn(self)
        except Exception:
            _base.LOGGER.exception("exception calling callback for %r", self)

    def __repr__(self) -> str:
        state = {_PENDING: "pending", _CANCELLED: "cancelled"}.get(self._state, "finished")
        if state == "finished":
            what = self._exception if self._exception is not None else self._result
            ended = "raised" if self._exception else "returned"
            return f"<Future at {id(self):#x} state={state} {ended} {type(what).__name__}>"
        return f"<Future at {id(self):#x} state={state}>"
