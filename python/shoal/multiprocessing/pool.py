# SPDX-License-Identifier: Apache-2.0
"""`multiprocessing.pool` with shoal's Pool; the rest, ThreadPool too, is the standard library's."""

from __future__ import annotations

import multiprocessing.pool as _stock
from multiprocessing.pool import ThreadPool

from shoal._dropin._pool import DropInPool as Pool
from shoal.multiprocessing import _alias

__all__ = ["Pool", "ThreadPool"]

__getattr__ = _alias.rest_of(_stock)
