# SPDX-License-Identifier: Apache-2.0
"""`multiprocessing.queues` with shoal's classes; the rest is the standard library's."""

from __future__ import annotations

import multiprocessing.queues as _stock
from typing import Any

from shoal._dropin_queues import JoinableQueue, Queue, SimpleQueue

__all__ = ["JoinableQueue", "Queue", "SimpleQueue"]


def __getattr__(name: str) -> Any:
    if not name.startswith("__"):
        return getattr(_stock, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
