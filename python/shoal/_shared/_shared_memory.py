# SPDX-License-Identifier: Apache-2.0
"""SharedMemory: named blocks in /dev/shm, with the standard library's interface.

1. A block lives until it is unlinked, or until the program that made it has ended. A process that
   attaches and ends never removes it.
2. `close()` ends this object's access and never fails. The memory stays mapped as long as a
   memoryview or an array uses it.
3. All memory of a block is allocated when it is made. A block that does not fit into /dev/shm is
   refused then, so later writes kill no process. It gets its name when it is complete.
4. An object keeps no file descriptor.

Design: docs/design/shared_memory.md
"""

from __future__ import annotations

import errno
import os
import secrets

from shoal._runtime import _imports, _leftovers
from shoal._runtime._native import core
from shoal._runtime._public import public
from shoal._shared import _tracking

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from typing_extensions import Self

_PREFIX = "/psm_"
_NAME_LIMIT = 255
_SMALL = 1 << 20  # up to this size the cgroup limits are not checked


@public
class SharedMemory:
    """A block of memory that other processes attach to by its name.

    `create=True` makes a block of `size` zero bytes, with the given or a generated `name`.
    Otherwise the object attaches to the block of that name, and `size` is ignored. `buf` is the
    memory.

    `track`: whether the block is removed when the program ends, even if it is killed. The default
    is True for a block that is made here; with False it stays until `unlink()` is called. For a
    block that is attached to, the default is False; with True it is removed when this program ends.

    Raises FileExistsError if the name to create exists, FileNotFoundError if the name to attach to
    does not, OSError for an invalid name, ValueError for a wrong size, and MemoryExhausted (a
    MemoryError) if /dev/shm or the memory limit is too small. Making a block costs 60 us plus
    clearing its memory, 0.1 to 0.25 ms per MB.

    >>> import shoal
    >>> block = shoal.SharedMemory(create=True, size=16)
    >>> block.buf[:5] = b"hello"
    >>> other = shoal.SharedMemory(block.name)      # in any process of the machine
    >>> bytes(other.buf[:5])
    b'hello'
    >>> other.close(); block.close(); block.unlink()
    """

    _name: str | None = None
    _mmap: Any = None
    _buf: memoryview | None = None
    _flags = os.O_RDWR
    _mode = 0o600
    _prepend_leading_slash = True
    _track = False
    _inode = 0
    _size = 0
    _slashes = 0  # leading slashes of the given name: POSIX names begin with one

    def __init__(
        self,
        name: str | None = None,
        create: bool = False,
        size: int = 0,
        *,
        track: bool | None = None,
    ) -> None:
        if not size >= 0:
            raise ValueError(f"'size' must be a positive integer, not {size!r}")
        if create:
            self._flags = os.O_CREAT | os.O_EXCL | os.O_RDWR
            if size == 0:
                raise ValueError("'size' must be a positive number different from zero")
            self._create(name, size, track is None or bool(track))
        elif name is None:
            raise ValueError("'name' can only be None if create=True")
        else:
            self._attach(_checked("/" + name), bool(track))
        self._slashes = len(name or "") - len((name or "").lstrip("/"))
        self._buf = memoryview(self._mmap)

    # ---- Making ----------------------------------------------------------------------------------

    def _new_name(self) -> str:
        """A name that is probably free, with its slash."""
        return _PREFIX + secrets.token_hex(4)

    def _create(self, name: str | None, size: int, track: bool) -> None:
        asked = None if name is None else _checked("/" + name)
        if asked is not None and os.path.lexists(_leftovers.FOLDER + asked):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), asked)
        _leftovers.remove_once()
        check_room(size)
        fd, made = self._open_new(asked)
        try:
            self._inode = os.fstat(fd).st_ino
            if track and made is not None:
                _leftovers.mark(fd, made[1:])
            reserve(fd, size)
            self._mmap = core.FileMapping(fd, size)
            self._name = made = made or self._publish(fd, asked, track)
            self._track = track and _tracking.track(made, self._inode)
        except BaseException:
            self._mmap = self._name = None
            if made is not None:
                os.unlink(_leftovers.FOLDER + made)
            _leftovers.unmark(self._inode)
            raise
        finally:
            os.close(fd)
        self._size = int(size)

    def _open_new(self, asked: str | None) -> tuple[int, str | None]:
        """Make a file: without a name if the system supports that, else with the returned name."""
        try:
            flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
            return os.open(_leftovers.FOLDER, flags, self._mode), None
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
                raise _unavailable(error) from None
        while True:
            name = asked or self._new_name()
            try:
                return _posix().shm_open(name, self._flags, mode=self._mode), name
            except FileExistsError:
                if asked is not None:
                    raise

    def _publish(self, fd: int, asked: str | None, track: bool) -> str:
        """Give the complete file its name."""
        while True:
            name = asked or self._new_name()
            if track:
                _leftovers.mark(fd, name[1:])
            try:
                # The descriptors make it linkat(2), which follows the link in /proc.
                place = _leftovers.FOLDER + name
                os.link(f"/proc/self/fd/{fd}", place, src_dir_fd=fd, follow_symlinks=True)
                return name
            except FileExistsError:
                if asked is not None:
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), asked) from None

    # ---- Attaching -------------------------------------------------------------------------------

    def _attach(self, name: str, track: bool) -> None:
        _leftovers.remove_once()
        fd = _posix().shm_open(name, self._flags, mode=self._mode)
        try:
            facts = os.fstat(fd)
            if facts.st_size == 0:
                raise ValueError(f"the shared memory {name[1:]!r} is empty: cannot map it")
            self._mmap = core.FileMapping(fd, facts.st_size)
        finally:
            os.close(fd)
        self._name, self._size, self._inode = name, facts.st_size, facts.st_ino
        if track:
            self._track = _tracking.track(name, self._inode)
        else:
            _tracking.note_attached(name)

    # ---- Interface -------------------------------------------------------------------------------

    @property
    def buf(self) -> memoryview | None:
        """The memory; None after `close()`."""
        return self._buf

    @property
    def name(self) -> str:
        """The name by which other processes attach."""
        name = self._name or ""
        if name.startswith("/") and self._prepend_leading_slash:
            return "/" * self._slashes + name[1:]
        return name

    @property
    def size(self) -> int:
        """The size in bytes, as requested."""
        return self._size

    @property
    def _fd(self) -> int:
        """Exists for code that reads it; no descriptor is kept."""
        return -1

    def close(self) -> None:
        """End this object's access. Arrays and memoryviews over the memory stay valid; when the
        last one is gone, the memory is unmapped. Closing again does nothing.
        """
        self._buf = None
        self._mmap = None

    def unlink(self) -> None:
        """Remove the block: no process can attach any more, and the memory is freed when the last
        process has unmapped it. Call it once for each block, in any process; FileNotFoundError if
        the block was already removed.
        """
        if self._name:
            _posix().shm_unlink(self._name)
            _leftovers.unmark(self._inode)
            _tracking.forget(self._name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return self.__class__, (self.name, False, self.size)

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self.name!r}, size={self.size})"


def _posix() -> Any:

    return _imports.standard("_posixshmem")


def _checked(name: str) -> str:
    """The name with one leading slash. Raises if no file in /dev/shm can have it."""
    name = "/" + name.lstrip("/")
    if "\0" in name:
        raise ValueError("embedded null character in the name of a shared memory")
    if name in ("/", "/.", "/.."):
        raise OSError(errno.EINVAL, "not a valid name for a shared memory", name[1:])
    if "/" in name[1:]:
        text = "the name of a shared memory can't contain a slash"
        raise OSError(errno.EINVAL, text, name[1:])
    if len(os.fsencode(name)) - 1 > _NAME_LIMIT:
        text = f"the name of a shared memory can have at most {_NAME_LIMIT} bytes"
        raise OSError(errno.ENAMETOOLONG, text, name[1:])
    return name


def _unavailable(error: OSError) -> OSError:
    why = os.strerror(error.errno or 0)
    text = f"{why}: named shared memory needs a writable {_leftovers.FOLDER}"
    return type(error)(error.errno, f"{text}; queues, locks and pools of shoal do not")


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def check_room(size: int) -> None:
    """Raise if a block of this size can't fit, before any memory is allocated."""
    try:
        facts = os.statvfs(_leftovers.FOLDER)
    except OSError:
        return  # no /dev/shm: opening the file will raise
    free = facts.f_bavail * facts.f_frsize
    if facts.f_blocks and size > free:
        _refuse(size)
    if size < _SMALL:
        return
    headroom, which = core.memory_headroom()
    if size > headroom:
        from shoal.errors import MemoryExhausted

        raise MemoryExhausted(
            f"a shared memory of {_mb(size)} was asked for, and {which} leaves {_mb(headroom)}"
        )


def _refuse(size: int) -> None:
    from shoal.errors import MemoryExhausted

    facts = os.statvfs(_leftovers.FOLDER)
    free, total = facts.f_bavail * facts.f_frsize, facts.f_blocks * facts.f_frsize
    raise MemoryExhausted(
        f"a shared memory of {_mb(size)} was asked for, and {_leftovers.FOLDER} has {_mb(free)} "
        f"free of {_mb(total)}. Make it larger (docker run --shm-size=..., mount -o "
        "remount,size=...), or use what shoal keeps elsewhere: arguments, results and queues are "
        "not bound by its size"
    )


def reserve(fd: int, size: int) -> None:
    """Set the file's size and allocate all its memory."""
    try:
        core.reserve_file(fd, size)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.ENOMEM, errno.EFBIG):
            _refuse(size)
        if error.errno != errno.EOPNOTSUPP:
            raise
        os.ftruncate(fd, size)
