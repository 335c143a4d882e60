# SPDX-License-Identifier: Apache-2.0
"""The hooks that the C++ core calls in a worker: they decode functions and definitions, and encode
errors.

The core calls the methods by name. If a method raises, its exception becomes the task's error.
TaskInterrupted, which the stop signal raises anywhere in a running task, must not be caught.
"""

from __future__ import annotations

from shoal._pickling import _codec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from shoal._pickling._applied import Applied


class TaskInterrupted(BaseException):
    """Raised inside a task to stop it, after its time limit or when it was cancelled."""


class WorkerHooks:
    """`core.Worker` calls its methods before, between and after tasks."""

    definitions = None

    def __init__(self, applied: Applied, by_name: bool = False) -> None:
        self.applied = applied
        self.by_name = by_name  # see `_codec.dumps`

    def decode_function(self, payload: bytes) -> Callable[..., Any]:
        from shoal._pickling._definitions import decode_function

        function: Callable[..., Any] = decode_function(payload)
        return function

    def apply_definition(self, entry: bytes) -> None:
        self.applied.apply(entry)

    def encode_error(
        self, error: BaseException, during: str, result: object = None
    ) -> tuple[Any, ...]:
        from shoal._pickling._exceptions import encode_exception

        if during == "encode":
            error = _encoding_error(error, result)
        return *encode_exception(error), during


class _Shown:
    """Takes the place of a result in an error about it. Its repr is the result's, shortened."""

    def __init__(self, result: object) -> None:
        from reprlib import Repr

        short = Repr()
        short.maxstring = short.maxother = 1_000
        try:
            self._text = short.repr(result)
        except TaskInterrupted:
            raise
        except BaseException as error:
            self._text = f"<{type(result).__qualname__}, whose repr raises {type(error).__name__}>"

    def __repr__(self) -> str:
        return self._text


def _encoding_error(error: BaseException, result: object) -> BaseException:
    """The error that the standard library raises for a result that cannot be pickled."""
    from multiprocessing.pool import MaybeEncodingError  # type: ignore[attr-defined]

    from shoal.errors import MemoryExhausted

    if isinstance(error, MemoryExhausted):
        return error
    wrapped: BaseException = MaybeEncodingError(error, _Shown(result))
    wrapped.__cause__ = error
    return wrapped


_codec.connect_pickler()
