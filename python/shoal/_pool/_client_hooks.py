# SPDX-License-Identifier: Apache-2.0
"""The hooks that the C++ core calls in the client process of a pool, to make exceptions for tasks.

The core calls the methods by name. If a method raises, its exception becomes the task's error.
Hooks have no reference to the pool object, so no reference cycle keeps a pool alive.
"""

from __future__ import annotations

import signal

from shoal._pickling import _codec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shoal._pickling._definitions import Definitions

    # the function's name, the codec's description of the unit, BatchFlags, the item's index in it
    What = tuple[str | None, str, int, int]

FORKED = "this pool was made before a fork and belongs to the parent process; make a new one here"


class ClientHooks:
    """Makes the exception that stands in for the result of a task that returned none."""

    def __init__(self, definitions: Definitions) -> None:
        self.definitions = definitions
        self.by_name = False  # see `_codec.dumps`
        self.broken: BaseException | None = None  # why the pool gave up
        self.forked = False  # this process is a forked child of the process that made the pool

    def worker_died(
        self, pid: int, status: int, peak: int, memory_limit: bool, what: What | None = None
    ) -> BaseException:
        from shoal.errors import WorkerDied

        task, arguments = (None, "") if what is None else _call(what)
        number, code = _cause(status)
        call = "no task" if what is None else f"{task or 'a task'}({arguments})"
        message = f"worker {pid} {_describe_exit(number, code)} while it ran {call}"
        if peak:
            message += f"; its peak memory was {_bytes(peak)}"
        if memory_limit:
            message += (
                "; a memory limit killed a process here at that time: "
                "make tasks use less memory, or use fewer workers"
            )
        elif number == signal.SIGKILL:
            message += "; kill -9 or the kernel's out-of-memory killer does this"
        return WorkerDied(
            message + self._after_death(),
            pid=pid,
            signal=number,
            exitcode=code,
            peak_memory=peak or None,
            memory_limit_hit=memory_limit,
            task=task,
            arguments=arguments,
        )

    def _after_death(self) -> str:
        return ". The pool goes on with a fresh worker; retries= runs such tasks again"

    def worker_ended(self, pid: int, status: int, peak: int, memory_limit: bool) -> None:
        """A worker died unexpectedly. If it ran a task, `worker_died` was called for it before."""

    def timed_out(self, seconds: float, what: What) -> BaseException:
        from shoal.errors import TaskTimeout

        task, arguments = _call(what)
        return TaskTimeout(
            f"{task or 'a task'}({arguments}) ran longer than its limit of {seconds:g} s "
            "and was stopped"
        )

    def cancelled(self) -> BaseException:
        from concurrent.futures import CancelledError

        return CancelledError("the task was cancelled")

    def unsent(self) -> BaseException:
        from shoal.errors import MemoryExhausted

        return MemoryExhausted(
            "a task has ended, but there was no memory left to store its result or its error; "
            "the worker's standard error says more"
        )

    def corrupt(self) -> BaseException:
        from shoal.errors import CorruptArena

        return CorruptArena("a task's record was written over: some process damaged shared memory")

    def closed(self) -> BaseException:
        from shoal.errors import ForkedPool, PoolClosed

        if self.forked:
            return ForkedPool(FORKED)
        if self.broken is not None:
            return self.broken
        return PoolClosed(
            "Pool not running: it was terminated or shut down before this task could be sent"
        )

    def decode_error(self, encoded: tuple[Any, ...]) -> BaseException:
        from shoal._pickling._exceptions import decode_exception

        return decode_exception(encoded)

    def undecodable(self, error: BaseException) -> BaseException:
        if hasattr(error, "add_note"):
            error.add_note("The task's result could not be rebuilt in this process.")
        return error


def _cause(status: int) -> tuple[int | None, int | None]:
    """(signal, exit code) of a wait status; one of the two is None."""
    if status & 0x7F:
        return status & 0x7F, None
    return None, status >> 8


def _describe_exit(number: int | None, code: int | None) -> str:
    if number is None:
        return f"exited with code {code}" if code else "ended without a result"
    try:
        return f"was killed by {signal.Signals(number).name}"
    except ValueError:
        return f"was killed by signal {number}"


def _call(what: What) -> tuple[str | None, str]:
    """The task's name, and its arguments as source text."""
    from shoal._pool import _arguments

    task, text, flags, item = what
    return task, _arguments.shown(text, flags, item)


def _bytes(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


_codec.connect_pickler()
