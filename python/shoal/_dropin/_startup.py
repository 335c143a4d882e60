# SPDX-License-Identifier: Apache-2.0
"""Initializers of the drop-in's pools: how they are sent to a worker, and how they run there.

This is a separate module so that workers need not import the engine.

Module state: `inherited`, the initializers by token, each kept while its engine lives.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_PIDFD_GETFD = 438  # the number of the system call, the same on all architectures
inherited: dict[int, tuple[Callable[..., object], tuple[Any, ...]]] = {}


def log_failure(initializer: Callable[..., object], *initargs: Any) -> None:
    """Call the initializer. If it raises, log that in the worker, as the standard library does."""
    try:
        initializer(*initargs)
    except BaseException:
        import logging

        text = "Exception in initializer:"
        logging.getLogger("concurrent.futures").critical(text, exc_info=True)
        raise


def run_inherited(token: int) -> None:
    initializer, initargs = inherited[token]
    initializer(*initargs)


def run_in_fresh_interpreter(
    authkey: bytes, initializer: Callable[..., object] | None = None, initargs: Any = ()
) -> None:
    multiprocessing.current_process().authkey = authkey
    if initializer is not None:
        initializer(*initargs)


class Spawning:
    """Takes the place of the Popen object of a process being spawned, while inheritable objects are
    pickled for a worker.
    """

    def __init__(self, kept: list[int]) -> None:
        self._kept = kept

    def duplicate_for_child(self, fd: int) -> int:
        self._kept.append(os.dup(fd))
        return self._kept[-1]

    @staticmethod
    def DupFd(fd: int) -> DescriptorElsewhere:
        return DescriptorElsewhere(os.getpid(), fd)


class DescriptorElsewhere:
    """A descriptor, sent as its number in the process that pickled it, which keeps it open."""

    def __init__(self, pid: int, fd: int) -> None:
        self._pid = pid
        self._fd = fd
        self._mode = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE

    def detach(self) -> int:
        """Get a descriptor in this process: pipes and files are reopened through /proc, sockets are
        fetched with pidfd_getfd.
        """
        try:
            flags = self._mode | os.O_NONBLOCK | os.O_CLOEXEC
            fd = os.open(f"/proc/{self._pid}/fd/{self._fd}", flags)
        except OSError:
            return self._fetch()
        os.set_blocking(fd, True)
        return fd

    def _fetch(self) -> int:
        import ctypes

        what = f"can't fetch descriptor {self._fd} (a socket?) of process {self._pid}"
        try:
            pidfd = os.pidfd_open(self._pid)
        except OSError as error:
            raise OSError(error.errno, f"{what}: pidfd_open: {error.strerror}") from None
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            fd: int = libc.syscall(_PIDFD_GETFD, pidfd, self._fd, 0)
            if fd < 0:
                number = ctypes.get_errno()
                raise OSError(number, f"{what}: pidfd_getfd: {os.strerror(number)}")
            return fd
        finally:
            os.close(pidfd)


def close_all(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())
