# SPDX-License-Identifier: Apache-2.0
"""Pipes: `shoal.Pipe` gives two connections, as `multiprocessing.Pipe` does.

Thin classes over the C type `shoal._core.Connection`, whose methods programs call directly. The
bytes on the descriptor are those of the standard library's connections; a large message is replaced
by a note that names a block of shared memory. So a connection works with `select`, ends and breaks
exactly as in the standard library, and sends an array with one copy.
Guarantees and limits: docs/design/pipe.md
"""

from __future__ import annotations

from shoal._pickling import _codec, _pickler
from shoal._runtime import _children, _session
from shoal._runtime._native import core
from shoal._runtime._public import public
from shoal._shared._closing import Closing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Connection", "Pipe"]


@public
class Connection(core.Connection, Closing):
    """One end of a pipe. `shoal.Pipe` makes it, or it is received from another process.

    Has the interface of `multiprocessing.connection.Connection`, and can be passed to
    `multiprocessing.connection.wait`. An array of a megabyte is copied once, into shared memory,
    and then belongs to the receiver.

    >>> import shoal
    >>> reader, writer = shoal.Pipe(duplex=False)
    >>> with reader, writer:
    ...     writer.send(["a", 1])
    ...     writer.send_bytes(b"raw")
    ...     reader.poll(), reader.recv(), reader.recv_bytes()
    (True, ['a', 1], b'raw')
    """

    def recv_bytes_into(self, buf: Any, offset: int = 0) -> int:
        """Receive one message into a writable buffer at `offset`; returns its size in bytes.

        Raises `multiprocessing.BufferTooShort`, with the whole message in its `args[0]`, if the
        message does not fit.

        >>> import shoal
        >>> one, other = shoal.Pipe()
        >>> one.send_bytes(b"abc")
        >>> buffer = bytearray(5)
        >>> other.recv_bytes_into(buffer, 1), buffer
        (3, bytearray(b'\\x00abc\\x00'))
        """
        with memoryview(buf) as given, given.cast("B") as view:
            if offset < 0:
                raise ValueError("negative offset")
            if offset > len(view):
                raise ValueError("offset too large")
            message = self.recv_bytes()
            if offset + len(message) > len(view):
                from multiprocessing import BufferTooShort

                raise BufferTooShort(message)
            view[offset : offset + len(message)] = message
        return len(message)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reduce(self)

    def __repr__(self) -> str:
        which = "closed" if self.closed else f"descriptor {self.fileno()}"
        ways = ("reads " if self.readable else "") + ("writes" if self.writable else "")
        return f"<shoal.Connection {ways.strip()}, {which}>"


@public
def Pipe(duplex: bool = True) -> tuple[Connection, Connection]:
    """Two connected connections. Without `duplex` the first only receives, the second only sends.

    A received object belongs to the receiver. An object that cannot be pickled raises in `send`;
    lambdas and closures can be sent. When all copies of the other end are closed or their processes
    have ended, `recv` raises EOFError and `send` raises BrokenPipeError. A pipe costs two
    descriptors, and 4.3 KiB of shared memory for each direction.

    >>> import shoal
    >>> one, other = shoal.Pipe()
    >>> one.send({"answer": 42})
    >>> other.poll(), other.recv()
    (True, {'answer': 42})
    >>> one.close()
    >>> other.recv()
    Traceback (most recent call last):
    EOFError
    """
    return make_pipe(Connection, duplex)


def make_pipe(cls: Any, duplex: bool) -> tuple[Any, Any]:
    """The two ends, as instances of `cls`."""
    state, first, second = core.open_pipe(duplex)
    try:
        one = core.Connection.__new__(cls, state, 0, first, True, duplex)
        return one, core.Connection.__new__(cls, state, 1, second, duplex, True)
    finally:
        core.let_go_pipe(state)


def _reduce(connection: Any) -> tuple[Any, ...]:
    from multiprocessing.reduction import DupFd

    descriptor = DupFd(connection.fileno())
    rest = (connection._end, connection.readable, connection.writable, type(connection))
    popen = _session.spawning_popen()
    if popen is None:
        return _connect, (core.session_identity(), connection._state_kept, descriptor, *rest)
    # The parent may close its copy before the child has its own.
    keeper = core.Connection.__new__(core.Connection, connection._state, 0, -1, False, False)
    _session.keep_for(popen, keeper)
    return _connect, (_session.carrier_for(popen), connection._state, descriptor, *rest)


def _connect(
    identity: Any, state: int, descriptor: Any, end: int, readable: bool, writable: bool, cls: Any
) -> Any:
    fd = descriptor.detach()
    if core.session_identity() == identity:
        return core.Connection.__new__(cls, state, end, fd, readable, writable)
    # This process is not in the session, but it can still read and write frames.
    from multiprocessing.connection import Connection as StockConnection

    return StockConnection(fd, readable, writable)


def _arrived(note: bytes) -> Any:
    """The object that a note names, for readers that are not shoal's Connection."""
    try:
        return core.take_noted(note)
    except LookupError as error:
        raise RuntimeError(
            f"a large message of a shoal pipe can't be received here: {error}. Receive it once,"
            " with a connection, in a process of the program that made the pipe."
        ) from None


def _pickled(obj: Any) -> bytes:
    """The bytes that `recv_bytes` returns for an object."""
    data, buffers = _pickler.dumps(obj)
    if buffers is None and data[0] == 0x80:
        return data
    from multiprocessing.reduction import ForkingPickler

    return bytes(ForkingPickler.dumps(obj))


_codec.connect_pickler()
_children.carry_session()
