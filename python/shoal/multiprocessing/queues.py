# SPDX-License-Identifier: Apache-2.0
"""`multiprocessing.queues` with shoal's classes; the rest is the standard library's."""

from __future__ import annotations

import multiprocessing.queues as _stock

from shoal._dropin._queues import JoinableQueue, Queue, SimpleQueue
from shoal.multiprocessing import _alias

__all__ = ["JoinableQueue", "Queue", "SimpleQueue"]

__getattr__ = _alias.rest_of(_stock)
