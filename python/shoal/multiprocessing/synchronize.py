# SPDX-License-Identifier: Apache-2.0
"""`multiprocessing.synchronize` with shoal's classes; the rest is the standard library's."""

from __future__ import annotations

import multiprocessing.synchronize as _stock

from shoal._dropin._sync import Barrier, BoundedSemaphore, Condition, Event, Lock, RLock, Semaphore
from shoal.multiprocessing import _alias

__all__ = ["Barrier", "BoundedSemaphore", "Condition", "Event", "Lock", "RLock", "Semaphore"]

__getattr__ = _alias.rest_of(_stock)
