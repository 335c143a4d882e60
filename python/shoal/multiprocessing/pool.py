# SPDX-License-Identifier: Apache-2.0
"""`multiprocessing.pool` with shoal's Pool; the rest, ThreadPool too, is the standard library's."""

from __future__ import annotations

import multiprocessing.pool as _stock
from multiprocessing.pool import ThreadPool
from typing import Any

from shoal._dropin import DropInPool as Pool

__all__ = ["Pool", "ThreadPool"]


def __getattr__(name: str) -> Any:
    if not name.startswith("__"):
        return getattr(_stock, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
