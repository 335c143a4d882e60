# SPDX-License-Identifier: Apache-2.0
"""Signals in the processes that shoal adds to a program.

Users do not see the agent as a part of the program: a signal to the whole process group (Ctrl-C,
Ctrl-Z, a batch system's SIGUSR1, a service manager's SIGTERM) must be handled by the program alone.
So the agent blocks all signals; it ends when it is told to through its bell, or when the program
ends.

A worker has the signal state that its start method gives it in the standard library. After a fork
these are the program's handlers, including those that C code has set (`faulthandler.register`), its
ignored signals, and its mask. In a fresh interpreter they are the ignored signals and the mask. The
exception is Ctrl-C: workers ignore it, unless the program has its own handler for SIGINT.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import functools
import signal
from collections.abc import Callable, Iterable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# What the kernel sends for an error of the program itself: blocked, it would end the process at
# once, without the handler that says where (faulthandler).
_FAULTS = {"SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV", "SIGSYS", "SIGTRAP"}
# signal.pthread_sigmask(), but without 60 enumeration members for what it returns.
_change_mask: Any = _signal.pthread_sigmask
_sigchld: Any = None  # in an agent: the SIGCHLD handler that its workers must get


def current_mask() -> tuple[int, ...]:
    """The signals that this thread blocks."""
    return tuple(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ())))


@functools.cache
def held_back() -> frozenset[int]:
    """All signals but those that a fault of this thread causes."""
    return frozenset(map(int, signal.valid_signals())) - {getattr(signal, n) for n in _FAULTS}


class interrupts_wait:
    """`with interrupts_wait() as mask:` signals are blocked in this thread, and handled at the end
    of the block: what their handlers raise, KeyboardInterrupt among it, is raised there. `mask`:
    the signals that were blocked before.

    Handlers always run in the main thread. So one may run during the block all the same, if another
    thread of the program receives its signal.
    """

    def __init__(self, signals: Iterable[int] | None = None) -> None:
        self._signals = held_back() if signals is None else signals

    def __enter__(self) -> tuple[int, ...]:
        self._mask = _change_mask(signal.SIG_BLOCK, ())
        try:  # pthread_sigmask() changes the mask, and then raises for a signal that came before it
            _change_mask(signal.SIG_BLOCK, self._signals)
        except BaseException:
            _change_mask(signal.SIG_SETMASK, self._mask)
            raise
        return tuple(self._mask)

    def __exit__(self, *exception: object) -> None:
        _change_mask(signal.SIG_SETMASK, self._mask)


def keep_out() -> None:
    """In the agent, before its first worker: block all signals."""
    global _sigchld
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    signal.set_wakeup_fd(-1)  # it may belong to an event loop of the program
    # If SIGCHLD were ignored, the kernel would not keep the workers' exit statuses.
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        _sigchld = signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def let_in(mask: Iterable[int]) -> None:
    """In a worker, when it is ready for signals. `mask`: the signals that the program blocks."""
    global _sigchld
    leave_interrupts_to_the_program()
    if _sigchld is not None:
        signal.signal(signal.SIGCHLD, _sigchld)
        _sigchld = None
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def leave_interrupts_to_the_program() -> None:
    """In a worker: ignore Ctrl-C. It goes to the whole process group, but the program decides what
    ends. Also reset the wake-up descriptor: the program's event loop must get only the program's
    own signals.
    """
    signal.set_wakeup_fd(-1)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _nothing)


def _nothing(number: int, frame: object) -> None:
    """A handler, not SIG_IGN: ignored signals would survive exec into the task's subprocesses."""


def catch_stop(number: int, handler: Callable[[int, object], None]) -> None:
    """In a worker: call `handler` for shoal's own signal, which the program may have blocked."""
    signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})


def leave() -> None:
    """In a worker whose pool has ended, before its exit functions. `terminate()` sends SIGTERM to
    all workers, because some may be in a task. This one is leaving already: its exit functions must
    not be interrupted by the program's SIGTERM handler (CPython would print what that raises).
    """
    if callable(signal.getsignal(signal.SIGTERM)):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
