# SPDX-License-Identifier: Apache-2.0
"""`multiprocessing.connection` with shoal's `Pipe`; the rest is the standard library's."""

from __future__ import annotations

import multiprocessing.connection as _stock
from multiprocessing.connection import Client, Connection, Listener, wait

from shoal._dropin._pipes import Pipe
from shoal.multiprocessing import _alias

__all__ = ["Client", "Connection", "Listener", "Pipe", "wait"]

__getattr__ = _alias.rest_of(_stock)
