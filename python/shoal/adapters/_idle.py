# SPDX-License-Identifier: Apache-2.0
"""Ends workers that have been idle for as long as the user allows, even if no further call is made.

One thread watches all executors that have such a limit. It runs while there are any, sleeps until
the earliest one may be due, and is registered as harmless to forks (`_fork_safety.harmless`).

Module state, written under `_changed`: `_watched`, the next time to check each executor; `_thread`.
Design: docs/design/adapters.md
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Protocol

from shoal._runtime import _locks
from shoal._workers import _fork_safety


class Idler(Protocol):
    def look(self, now: float) -> float | None:
        """End the workers if they are due. Returns when to check again, in time.monotonic(); None:
        never.
        """


def _new_condition() -> threading.Condition:
    return threading.Condition(threading.Lock())


_changed = _new_condition()
_locks.renew_in_children(sys.modules[__name__], "_changed", _new_condition)
_watched: dict[Idler, float] = {}
_thread: threading.Thread | None = None


def watch(idler: Idler, at: float) -> None:
    """Have the thread call `idler.look()` at that time. Replaces an earlier time for the idler."""
    global _thread
    with _changed:
        _watched[idler] = at
        _changed.notify()
        if _thread is None:
            _thread = threading.Thread(target=_run, name="shoal-idle", daemon=True)
            _fork_safety.harmless.add(_thread)
            try:
                _thread.start()
            except RuntimeError:  # the interpreter is exiting, which ends all workers
                _thread = None


def _run() -> None:
    global _thread
    while True:
        with _changed:
            if not _watched:
                _thread = None
                return
            idler, at = min(_watched.items(), key=lambda entry: entry[1])
            wait = at - time.monotonic()
            if wait > 0:
                _changed.wait(min(wait, threading.TIMEOUT_MAX))
                continue
            del _watched[idler]
        _look(idler)


def _look(idler: Idler) -> None:
    try:
        again = idler.look(time.monotonic())
    except Exception:  # this thread must go on, because it watches other executors too
        sys.excepthook(*sys.exc_info())
        return
    if again is not None:
        with _changed:
            _watched.setdefault(idler, again)  # unless `watch` set another time meanwhile


def _after_fork_in_child() -> None:
    global _thread
    _thread = None
    _watched.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
