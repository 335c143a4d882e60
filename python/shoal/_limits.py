# SPDX-License-Identifier: Apache-2.0
"""Errors at a limit of the operating system say which limit, its value, and what to do."""

from __future__ import annotations

import errno
import os

from shoal._native import core


class named:
    """`with named("start a pool"):` an OSError of the body, or the RuntimeError of a thread that
    cannot be started, is raised again with the limit that it speaks of. It stays what it was for
    handlers: same type, same `errno`.
    """

    def __init__(self, doing: str) -> None:
        self._doing = doing

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, OSError):
            number = error.errno or 0
        elif type(error) is RuntimeError and str(error) == "can't start new thread":
            number = errno.ENOMEM if core.limit_behind(errno.ENOMEM) else errno.EAGAIN  # its stack
        else:
            return
        hint = core.limit_behind(number)
        if not hint:
            return
        if isinstance(error, OSError):
            text = f"{os.strerror(number)}: {self._doing}: {hint}"
            raise OSError(number, text, error.filename) from error
        raise RuntimeError(f"{error}: {self._doing}: {hint}") from error
