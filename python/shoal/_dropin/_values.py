# SPDX-License-Identifier: Apache-2.0
"""`multiprocessing.sharedctypes` on shared memory: Value, Array, RawValue, RawArray.

The standard library's functions are used unchanged, for any ctypes type, but two names that they
look up are replaced. `new_value` allocates from a zeroed block of the session. `Synchronized` (a
Value of a simple type) has a `value` that is implemented in C. The functions of this module are
copies of the stock ones with these two names replaced, for `shoal.multiprocessing` without
`install()`; `install()` replaces the names in the stock module.
Design: docs/design/drop_in.md
"""

from __future__ import annotations

import ctypes
import multiprocessing.context as stock_context
import multiprocessing.sharedctypes as stock
from types import FunctionType

from shoal._runtime import _children, _session
from shoal._runtime._native import core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_stock: Any = stock
_context: Any = stock_context
_ctypes: Any = ctypes


class Block(core.Block):
    """The memory of a shared ctypes object; replaces the stock heap's BufferWrapper."""

    def __reduce__(self) -> tuple[Any, ...]:
        _context.assert_spawning(self)
        return _session.reduce_shared(_block_at, self, type(self), self.size)


def _block_at(handle: int, cls: Any, size: int) -> Any:
    return core.Block.__new__(cls, size, handle)


def new_value(type_: Any) -> Any:
    """A ctypes object of that type in a block of its own."""
    try:
        size = ctypes.sizeof(type_)
    except TypeError as error:
        codes = ", ".join(_stock.typecode_to_type)
        raise TypeError(f"bad typecode: it must be a ctypes type or one of {codes}") from error
    return _stock.rebuild_ctype(type_, Block(size), None)


class Synchronized(core.ValueCell, _stock.Synchronized):  # type: ignore[misc]
    """A Value: reading or writing `value` holds the lock."""

    def __new__(cls, obj: Any, lock: Any = None, ctx: Any = None) -> Any:
        if lock is None:
            lock = (ctx or _stock.get_context(force=True)).RLock()
        code = getattr(type(obj), "_type_", "")
        return core.ValueCell.__new__(cls, obj, lock, ctypes.addressof(obj), code)

    def __init__(self, obj: Any, lock: Any = None, ctx: Any = None) -> None:
        pass

    @staticmethod
    def _left(obj: Any = None, lock: Any = None, ctx: Any = None) -> str:
        """Why a call with these arguments is left to the standard library; "" if it is not."""
        fits = isinstance(lock, (core.Lock, core.RLock)) and isinstance(obj, _ctypes._SimpleCData)
        return "" if fits else "its lock is not shoal's"

    def __reduce__(self) -> tuple[Any, ...]:
        _context.assert_spawning(self)
        return synchronized, (self._obj, self._lock)


core.ValueCell._read_directly(Synchronized)


def _synchronized(obj: Any, lock: Any = None, ctx: Any = None) -> Any:
    """Make a Synchronized for a simple value: of the stock class if the lock is not shoal's."""
    cls = _stock.Synchronized if Synchronized._left(obj, lock) else Synchronized
    return cls(obj, lock, ctx)


_namespace = {**vars(stock), "_new_value": new_value, "Synchronized": _synchronized}


def _rebound(name: str) -> Any:
    """A copy of the stock function that looks up global names in `_namespace`."""
    function = getattr(_stock, name)
    made = FunctionType(function.__code__, _namespace, name, function.__defaults__)
    made.__kwdefaults__ = function.__kwdefaults__
    made.__doc__ = function.__doc__
    made.__module__ = __name__
    _namespace[name] = made
    return made


RawValue = _rebound("RawValue")
RawArray = _rebound("RawArray")
synchronized = _rebound("synchronized")
Value = _rebound("Value")
Array = _rebound("Array")
copy = _rebound("copy")

_children.carry_session()
