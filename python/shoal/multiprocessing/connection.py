# SPDX-License-Identifier: Apache-2.0
"""`multiprocessing.connection` with shoal's `Pipe`; the rest is the standard library's."""

from __future__ import annotations

import multiprocessing.connection as _stock
from multiprocessing.connection import Client, Connection, Listener, wait
from typing import Any

from shoal._dropin_pipes import Pipe

__all__ = ["Client", "Connection", "Listener", "Pipe", "wait"]


def __getattr__(name: str) -> Any:
    if not name.startswith("__"):
        return getattr(_stock, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
