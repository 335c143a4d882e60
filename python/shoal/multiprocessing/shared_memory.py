# SPDX-License-Identifier: Apache-2.0
"""`multiprocessing.shared_memory` with shoal's classes; the rest is the standard library's."""

from __future__ import annotations

import multiprocessing.shared_memory as _stock
from typing import Any

from shoal._dropin_shared_memory import ShareableList, SharedMemory

__all__ = ["ShareableList", "SharedMemory"]


def __getattr__(name: str) -> Any:
    if not name.startswith("__"):
        return getattr(_stock, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
