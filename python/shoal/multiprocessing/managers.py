# SPDX-License-Identifier: Apache-2.0
"""`multiprocessing.managers` with shoal's SyncManager; the rest is the standard library's."""

from __future__ import annotations

import multiprocessing.managers as _stock

from shoal._dropin._managers import SyncManager
from shoal.multiprocessing import _alias

__all__ = ["SyncManager"]

__getattr__ = _alias.rest_of(_stock)
