# SPDX-License-Identifier: Apache-2.0
"""`multiprocessing.sharedctypes` on shoal's shared memory; the rest is the standard library's."""

from __future__ import annotations

import multiprocessing.sharedctypes as _stock

from shoal._dropin._values import Array, RawArray, RawValue, Value, copy, synchronized
from shoal.multiprocessing import _alias

__all__ = ["Array", "RawArray", "RawValue", "Value", "copy", "synchronized"]

__getattr__ = _alias.rest_of(_stock)
