# SPDX-License-Identifier: Apache-2.0
"""`multiprocessing.shared_memory` with shoal's classes; the rest is the standard library's."""

from __future__ import annotations

import multiprocessing.shared_memory as _stock

from shoal._dropin._shared_memory import ShareableList, SharedMemory
from shoal.multiprocessing import _alias

__all__ = ["ShareableList", "SharedMemory"]

__getattr__ = _alias.rest_of(_stock)
