# SPDX-License-Identifier: Apache-2.0
"""ShareableList: a list of fixed length in a named block, with the standard library's interface.

The layout is the standard library's, so that programs without shoal can attach. Behind it, where
these programs do not look, is the exact length of each text. All numbers have 8 bytes, in this
machine's byte order, unless stated otherwise:

    N | N+1 offsets of items from the start of the data | data: slots of 8 bytes or a multiple
      | N struct formats, 8 bytes each ("q", "16s") | N kinds, 1 byte each
      | N lengths | MAGIC

The standard library strips all zero bytes from the end of a text, and so loses those that belong to
it. If the bytes behind the recorded length are not all zero, a process without shoal wrote the
text, and it is read as the standard library reads it.

Items are not locked: a reader may see a half-written item, as in the standard library.
Design: docs/design/shared_memory.md
"""

from __future__ import annotations

import struct
import types
from collections.abc import Iterable, Iterator
from functools import partial

from shoal._runtime._public import public
from shoal._shared import _shared_memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MAGIC = b"shoal.SL"
_SLOT = 8
_LARGEST = 9_999_999  # because the format of a text has at most 8 characters
_NUMBER, _TEXT, _BYTES, _NONE = range(4)
_FORMATS = {int: "q", float: "d", bool: "xxxxxxx?", type(None): "xxxxxx?x"}


def _encode(value: Any) -> tuple[Any, str, int]:
    """The value to pack, its struct format (for a text, of the smallest slot), and its kind."""
    if isinstance(value, (str, bytes)):
        is_text = isinstance(value, str)
        # "surrogatepass" allows lone surrogates, so that every str can be stored.
        data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
        # The standard library's size, from the number of characters, or more if UTF-8 needs more.
        room = _SLOT * max(len(value) // _SLOT + 1, -(-len(data) // _SLOT))
        if room > _LARGEST:
            raise ValueError(
                f"an item of a ShareableList can have {_LARGEST:,} bytes, this one has "
                f"{len(data):,}: keep it in a SharedMemory of its own"
            )
        return data, f"{room}s", _TEXT if is_text else _BYTES
    form = _FORMATS.get(type(value))
    if form is None:
        names = "int, float, bool, str, bytes and None"
        raise TypeError(
            f"a ShareableList has items of {names}, not {type(value).__name__}: {value!r}"
        )
    return value, form, _NONE if value is None else _NUMBER


def _room(form: str) -> int:
    return int(form[:-1]) if form[-1] == "s" else _SLOT


@public
class ShareableList:
    """A list of int (64 bits), float, bool, str, bytes and None whose length is fixed.

    Items can be replaced. A new text must fit into its slot, which has at least the first text's
    length in UTF-8, rounded up to a multiple of 8. Other processes attach with
    `ShareableList(name=list.shm.name)`, or receive the list. `shm` is its block, to be closed and
    unlinked like any `SharedMemory`. Reading a number takes about 1.5 us, a text 3 us.

    >>> import shoal
    >>> items = shoal.ShareableList([1, "two", b"three\\0", None])
    >>> items[0] = 11
    >>> shoal.ShareableList(name=items.shm.name)[0], items[2]
    (11, b'three\\x00')
    >>> items.shm.close(); items.shm.unlink()
    """

    _block: Any = _shared_memory.SharedMemory

    def __init__(self, sequence: Iterable[Any] | None = None, *, name: str | None = None) -> None:
        if name is None or sequence is not None:
            self._make([_encode(value) for value in sequence or ()], name)
        else:
            self.shm = self._block(name)
            try:
                self._look()
            except struct.error:
                raise ValueError(f"the shared memory {name!r} holds no ShareableList") from None

    def _make(self, items: list[tuple[Any, str, int]], name: str | None) -> None:
        count = len(items)
        offsets = [0]
        for _, form, _ in items:
            offsets.append(offsets[-1] + _room(form))
        self._place(offsets)
        self.shm = self._block(name, create=True, size=self._end)
        buffer = self.shm.buf
        struct.pack_into(f"{count + 2}q", buffer, 0, count, *offsets)
        self._has_lengths = True
        for position, (data, form, kind) in enumerate(items):
            self._store(position, data, form, kind)
        struct.pack_into("8s", buffer, self._end - 8, _MAGIC)

    def _look(self) -> None:
        """Read the layout of an existing block."""
        buffer = self.shm.buf
        (count,) = struct.unpack_from("q", buffer, 0)
        if not 0 <= count < self.shm.size // _SLOT:
            raise struct.error
        self._place(list(struct.unpack_from(f"{count + 1}q", buffer, 8)))
        end = self._end
        self._has_lengths = end <= self.shm.size and buffer[end - 8 : end] == _MAGIC

    def _place(self, offsets: list[int]) -> None:
        """Compute the position of each section from the offsets of the items."""
        self._list_len = count = len(offsets) - 1
        self._allocated_offsets = offsets
        self._data = (count + 2) * 8
        self._formats = self._data + offsets[-1]
        self._kinds = self._formats + 8 * count
        self._lengths = self._kinds + count
        self._end = self._lengths + 8 * count + len(_MAGIC)

    def _buffer(self) -> memoryview:
        buffer: memoryview | None = self.shm.buf
        if buffer is None:
            raise ValueError("this ShareableList is closed: its block's close() was called")
        return buffer

    def _checked(self, position: int, what: str) -> int:
        index = position + self._list_len if position < 0 else position
        if not 0 <= index < self._list_len:
            raise IndexError(f"{what} out of range: {position}, with {self._list_len} items")
        return index

    def _store(self, position: int, data: Any, form: str, kind: int) -> None:
        buffer = self._buffer()
        struct.pack_into(form, buffer, self._data + self._allocated_offsets[position], data)
        if self._has_lengths and kind in (_TEXT, _BYTES):
            struct.pack_into("=q", buffer, self._lengths + 8 * position, len(data))
        struct.pack_into("8s", buffer, self._formats + 8 * position, form.encode())
        struct.pack_into("b", buffer, self._kinds + position, kind)

    def _get_packing_format(self, position: int) -> str:
        """The struct format of one item."""
        at = self._formats + 8 * self._checked(position, "Requested position")
        (raw,) = struct.unpack_from("8s", self._buffer(), at)
        form: str = raw.rstrip(b"\0").decode()
        return form

    def __getitem__(self, position: int) -> Any:
        index = self._checked(position, "index")
        buffer = self._buffer()
        at = self._data + self._allocated_offsets[index]
        (value,) = struct.unpack_from(self._get_packing_format(index), buffer, at)
        (kind,) = struct.unpack_from("b", buffer, self._kinds + index)
        if kind == _NUMBER:
            return value
        if kind == _NONE:
            return None
        exact = self._exact(index, value)
        return exact.decode("utf-8", "surrogatepass") if kind == _TEXT else exact

    def _exact(self, index: int, slot: bytes) -> bytes:
        """The text in its slot, without the padding."""
        if self._has_lengths:
            (length,) = struct.unpack_from("=q", self._buffer(), self._lengths + 8 * index)
            if 0 <= length <= len(slot) and not slot[length:].rstrip(b"\0"):
                return slot[:length]
        return slot.rstrip(b"\0")

    def __setitem__(self, position: int, value: Any) -> None:
        index = self._checked(position, "assignment index")
        data, form, kind = _encode(value)
        room = self._allocated_offsets[index + 1] - self._allocated_offsets[index]
        if kind in (_TEXT, _BYTES):
            if len(data) > room:
                raise ValueError(
                    f"bytes/str item exceeds available storage: {len(data)} bytes, and item "
                    f"{position} has room for {room}"
                )
            form = f"{room}s"
        self._store(index, data, form, kind)

    def __len__(self) -> int:
        return self._list_len

    def __iter__(self) -> Iterator[Any]:
        for index in range(self._list_len):
            yield self[index]

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(self.__class__, name=self.shm.name), ()

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({list(self)}, name={self.shm.name!r})"

    @property
    def format(self) -> str:
        """The struct formats of all items, concatenated."""
        return "".join(self._get_packing_format(index) for index in range(self._list_len))

    def count(self, value: Any) -> int:
        """How many items equal `value`."""
        return sum(value == item for item in self)

    def index(self, value: Any) -> int:
        """The first position of `value`; ValueError if no item equals it."""
        for position, item in enumerate(self):
            if value == item:
                return position
        raise ValueError(f"{value!r} not in this container")

    __class_getitem__: Any = classmethod(types.GenericAlias)
