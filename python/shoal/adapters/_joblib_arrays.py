# SPDX-License-Identifier: Apache-2.0
"""Copies large arrays among a batch's arguments once, into memory that all workers map.

Only the arguments themselves are checked. Arrays inside other objects are sent like any value.
The memory is an unnamed file, which the sender keeps open until the tasks that use it are done. A
worker opens it through /proc. A killed process leaves nothing behind.

A task gets an ordinary array. With mmap_mode "r" (joblib's default) and "c" it is a private view:
writing to it copies the pages, and no other task sees the write. With "r+" and "w+" the tasks of
the call see each other's writes. An array that maps a user's file is sent as the file's name, as
joblib does.
Design: docs/design/adapters.md
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
from collections import OrderedDict

from shoal._runtime._native import core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_REMEMBERED = 8  # arrays of a call whose copies are kept for its later tasks


class SharedArray:
    """In the sender: the array and its copy. Unpickles as the array."""

    def __init__(self, array: Any, is_shared: bool) -> None:
        import numpy

        self.array = array  # a reference, so that no other array gets its id
        self._fd = os.memfd_create("shoal-array", os.MFD_CLOEXEC)
        self._inode = os.fstat(self._fd).st_ino
        self._pid = os.getpid()
        self._is_shared = is_shared
        self._order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
        core.reserve_file(self._fd, array.nbytes)
        memory = core.FileMapping(self._fd, array.nbytes)
        make: Any = numpy.ndarray
        copy = make(array.shape, array.dtype, buffer=memory, order=self._order)
        copy[...] = array

    def __del__(self) -> None:
        fd = getattr(self, "_fd", -1)
        if fd >= 0 and os.getpid() == self._pid:
            os.close(fd)

    def __reduce__(self) -> tuple[Any, ...]:
        array = self.array
        place = (self._pid, self._fd, self._inode)
        return open_array, (place, array.dtype, array.shape, self._order, self._is_shared)


def open_array(
    place: tuple[int, int, int], dtype: Any, shape: tuple[int, ...], order: Any, is_shared: bool
) -> Any:
    """In a worker: map the array's memory. `SharedArray` unpickles by calling this."""
    import numpy

    pid, number, inode = place
    fd = os.open(
        f"/proc/{pid}/fd/{number}", (os.O_RDWR if is_shared else os.O_RDONLY) | os.O_CLOEXEC
    )
    try:
        if os.fstat(fd).st_ino != inode:
            raise RuntimeError("the memory of a task's array is gone: its sender has closed it")
        flags = mmap.MAP_SHARED if is_shared else mmap.MAP_PRIVATE
        memory = mmap.mmap(fd, 0, flags, mmap.PROT_READ | mmap.PROT_WRITE)
    finally:
        os.close(fd)
    return numpy.ndarray(shape, dtype, buffer=memory, order=order)


class MappedFile:
    """An array that maps a user's file: pickles as joblib sends it."""

    def __init__(self, reduced: tuple[Any, ...]) -> None:
        self._reduced = reduced

    def __reduce__(self) -> tuple[Any, ...]:
        return self._reduced


def _has(call: Any, kind: type) -> bool:
    """Whether an argument of the call is a `kind`. Runs for each task, so it makes no generator."""
    for value in (*call[1], *call[2].values()):  # noqa: SIM110
        if isinstance(value, kind):
            return True
    return False


class Sharing:
    """The arrays of one parallel call. Thread safe."""

    def __init__(self, max_nbytes: int | None, mode: str | None) -> None:
        self._least = max_nbytes
        self._is_shared = mode in ("r+", "w+")
        self._recent: OrderedDict[int, SharedArray] = OrderedDict()
        self._lock = threading.Lock()

    def wrap(self, items: list[Any]) -> tuple[list[Any], list[Any]]:
        """The calls with large arrays replaced, and the objects to keep until they are done."""
        kept: list[Any] = []
        numpy = sys.modules.get("numpy")
        if numpy is None:
            return items, kept
        array = numpy.ndarray
        return [self._wrap_call(i, kept) if _has(i, array) else i for i in items], kept

    def _wrap_call(self, item: Any, kept: list[Any]) -> Any:
        function, args, kwargs = item
        if not any(map(self._is_ours, (*args, *kwargs.values()))):
            return item
        args = tuple(self._wrap(value, kept) for value in args)
        return function, args, {key: self._wrap(value, kept) for key, value in kwargs.items()}

    def _is_ours(self, value: Any) -> bool:
        numpy = sys.modules["numpy"]
        if not isinstance(value, numpy.ndarray):
            return False
        if type(value) is numpy.ndarray and self._is_large(value):
            return True
        return _backing(value) is not None

    def _is_large(self, array: Any) -> bool:
        return self._least is not None and array.nbytes > self._least and not array.dtype.hasobject

    def _wrap(self, value: Any, kept: list[Any]) -> Any:
        if not self._is_ours(value):
            return value
        backing = _backing(value)
        if backing is not None:
            from joblib._memmapping_reducer import _reduce_memmap_backed

            return MappedFile(_reduce_memmap_backed(value, backing))
        shared = self._shared(value)
        if shared is None:
            return value
        kept.append(shared)
        return shared

    def _shared(self, array: Any) -> SharedArray | None:
        with self._lock:
            known = self._recent.pop(id(array), None)
            if known is None:
                try:
                    known = SharedArray(array, self._is_shared)
                except (OSError, MemoryError):
                    return None  # send it like any value, which may raise a clearer error
            self._recent[id(array)] = known
            if len(self._recent) > _REMEMBERED:
                self._recent.popitem(last=False)
            return known


def _backing(array: Any) -> Any:
    """The numpy.memmap whose file the array maps, or None."""
    if array.base is None:
        return None
    from joblib._memmapping_reducer import _get_backing_memmap

    found = _get_backing_memmap(array)
    numpy = sys.modules["numpy"]
    if not isinstance(found, numpy.memmap) or found.filename is None or found.mode == "c":
        return None  # in mode "c" this process's writes are not in the file
    return found if os.path.exists(found.filename) else None
