# SPDX-License-Identifier: Apache-2.0
"""`multiprocessing.synchronize` with shoal's classes; the rest is the standard library's."""

from __future__ import annotations

import multiprocessing.synchronize as _stock
from typing import Any

from shoal._dropin_sync import Barrier, BoundedSemaphore, Condition, Event, Lock, RLock, Semaphore

__all__ = ["Barrier", "BoundedSemaphore", "Condition", "Event", "Lock", "RLock", "Semaphore"]


def __getattr__(name: str) -> Any:
    if not name.startswith("__"):
        return getattr(_stock, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
