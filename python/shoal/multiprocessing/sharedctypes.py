# SPDX-License-Identifier: Apache-2.0
"""`multiprocessing.sharedctypes` on shoal's shared memory; the rest is the standard library's."""

from __future__ import annotations

import multiprocessing.sharedctypes as _stock
from typing import Any

from shoal._dropin_values import Array, RawArray, RawValue, Value, copy, synchronized

__all__ = ["Array", "RawArray", "RawValue", "Value", "copy", "synchronized"]


def __getattr__(name: str) -> Any:
    if not name.startswith("__"):
        return getattr(_stock, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
