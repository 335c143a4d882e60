# SPDX-License-Identifier: Apache-2.0
"""The core calls `tell` when a thread takes over a lock from a process that died holding it."""

from __future__ import annotations

import warnings

from shoal.errors import OwnerDied, OwnerDiedWarning

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def tell(lock: Any, pid: int, raises: bool) -> None:
    """Warn, or raise OwnerDied for a lock that was made with `on_owner_death="raise"`."""
    who = f"process {pid}" if pid else "a process"
    text = (
        f"{who} died while it had this {type(lock).__name__}: what the lock protects may be half"
        " changed"
    )
    if raises:
        raise OwnerDied(text, pid)
    warnings.warn(OwnerDiedWarning(text), stacklevel=2)
