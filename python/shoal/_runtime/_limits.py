# SPDX-License-Identifier: Apache-2.0
"""Error messages that name the limit of the operating system which was reached (open files,
processes, address space), its value, and what to do.
"""

from __future__ import annotations

import errno
import os

from shoal._runtime._native import core


class named:
    """`with named("cannot start a pool"):` adds the limit to the message of an OSError that the
    block raises, and of the RuntimeError that `threading` raises when no thread can be started.
    Type and `errno` do not change, so `except` clauses catch the error as before.
    """

    def __init__(self, doing: str) -> None:
        self._doing = doing

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, OSError):
            number = error.errno or 0
        elif type(error) is RuntimeError and str(error) == "can't start new thread":
            # Either there are too many threads, or the new thread's stack has no address space.
            number = errno.ENOMEM if core.limit_behind(errno.ENOMEM) else errno.EAGAIN
        else:
            return
        hint = core.limit_behind(number)
        if not hint:
            return
        if isinstance(error, OSError):
            text = f"{os.strerror(number)}: {self._doing}: {hint}"
            raise OSError(number, text, error.filename) from error
        raise RuntimeError(f"{error}: {self._doing}: {hint}") from error
