# SPDX-License-Identifier: Apache-2.0
"""Ends workers that have been idle for as long as their user allows, without a next call.

One thread looks after all executors that have such a limit. It is there while there are any, sleeps
until the earliest may be due, and is known to be harmless to forks (`_fork_safety.harmless`).

Module state, written under `_changed`: `_watched`, when each is to be looked at; `_thread`.
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
        """End what is due. When to look again, by time.monotonic(); None: no more."""


def _new_condition() -> threading.Condition:
    return threading.Condition(threading.Lock())


_changed = _new_condition()
_locks.renew_in_children(sys.modules[__name__], "_changed", _new_condition)
_watched: dict[Idler, float] = {}
_thread: threading.Thread | None = None


def watch(idler: Idler, at: float) -> None:
    """Have `idler.look()` called at that time, by the thread; anew if it is watched already."""
    global _thread
    with _changed:
        _watched[idler] = at
        _changed.notify()
        if _thread is None:
            _thread = threading.Thread(target=_run, name="shoal-idle", daemon=True)
            _fork_safety.harmless.add(_thread)
            try:
                _thread.start()
            except RuntimeError:  # the interpreter is exiting, and all ends
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
    except Exception:  # others are watched by this thread
        sys.excepthook(*sys.exc_info())
        return
    if again is not None:
        with _changed:
            _watched.setdefault(idler, again)  # unless it was asked for meanwhile


def _after_fork_in_child() -> None:
    global _thread
    _thread = None
    _watched.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
