# SPDX-License-Identifier: Apache-2.0
"""The functions that workers run, in a separate module, so that every side finds them by name."""

from __future__ import annotations

import math
from typing import Any


def noop(value: object = None) -> object:
    """A task that does nothing, so everything else is measured."""
    return value


def nothing() -> None:
    """A call without argument or result."""


def length(value: Any) -> int:
    """Receives a large argument."""
    return len(value)


def make_bytes(size: int) -> bytes:
    """Sends a large result, which is kept between calls, so that making it is not measured."""
    return _kept_bytes(size)


def array_length(array: Any) -> int:
    """Receives a large array; reads one value, so that the array must have arrived."""
    return int(array.size + array[0])


def make_array(size: int) -> Any:
    """Sends a large array."""
    return _kept_array(size)


def numpy_sum(count: int) -> float:
    """A first result that needs numpy."""
    import numpy

    return float(numpy.arange(count).sum())


def is_prime(number: int) -> bool:
    """Trial division, as in examples/primes.py."""
    if number < 2 or number % 2 == 0:
        return number == 2
    return all(number % divisor for divisor in range(3, math.isqrt(number) + 1, 2))


_kept: dict[tuple[str, int], Any] = {}


def _kept_bytes(size: int) -> bytes:
    key = "bytes", size
    if key not in _kept:
        _kept[key] = bytes(size)
    result: bytes = _kept[key]
    return result


def _kept_array(size: int) -> Any:
    import numpy

    key = "array", size
    if key not in _kept:
        _kept[key] = numpy.ones(size)
    return _kept[key]
