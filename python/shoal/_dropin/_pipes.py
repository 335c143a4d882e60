# SPDX-License-Identifier: Apache-2.0
"""`multiprocessing.Pipe` on shared memory.

The ends are shoal's connections. The stock class is their last base. A Connection that is made for
an existing descriptor (Listener, Client, `Connection(fd)`) is the stock one.
Design: docs/design/pipe.md
"""

from __future__ import annotations

import io
import multiprocessing.connection as stock_connection

from shoal._runtime._native import core
from shoal._shared import _pipes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_stock: Any = stock_connection


class Connection(_pipes.Connection, _stock.Connection):  # type: ignore[misc]
    """An end of a pipe; an instance of `multiprocessing.connection.Connection` too."""

    def __new__(cls, handle: int, readable: bool = True, writable: bool = True) -> Any:
        return _stock.Connection(handle, readable, writable)

    def __init__(self, *args: Any) -> None:
        """Does nothing: `Pipe` makes complete objects."""

    __repr__ = object.__repr__

    # Private methods that code written for the stock class calls.

    def _send_bytes(self, buf: Any) -> None:
        core.Connection.send_bytes(self, buf)

    def _recv_bytes(self, maxsize: int | None = None) -> io.BytesIO | None:
        message = io.BytesIO()
        message.write(core.Connection.recv_bytes(self, maxsize))
        return message

    def _poll(self, timeout: float | None) -> bool:
        return core.Connection.poll(self, timeout)


def Pipe(duplex: bool = True) -> tuple[Any, Any]:
    """Returns pair of connection objects at either end of a pipe"""
    return _pipes.make_pipe(Connection, duplex)
