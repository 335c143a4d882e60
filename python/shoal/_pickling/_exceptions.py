# SPDX-License-Identifier: Apache-2.0
"""Sends exceptions from a worker to the parent.

In the worker, `encode_exception(error)` returns a tuple of plain values. In the parent,
`decode_exception(fields)` returns an exception to raise: the original, whose `__cause__` shows the
worker's traceback as the standard library does, or a `RemoteError` that says why the original could
not be sent.

Neither function ever raises, whatever the exception's own code does: a task's error must not become
the worker's error. The fields, in order:

    module, qualified name   of the exception's class
    text                     str(error), or a replacement if str() raises
    traceback                as traceback.format_exception returns it, with causes and contexts
    pickled, reason          the pickled exception, or None and why it could not be pickled
    notes                    the __notes__, as text
    chain                    one line for each cause or context, nearest first
"""

from __future__ import annotations

from shoal._pickling import _pickler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

Fields = tuple[str, str, str, str, "bytes | None", str, tuple[str, ...], tuple[str, ...]]
_LONGEST_CHAIN = 100


def encode_exception(error: BaseException) -> Fields:
    """The exception as plain values. Call it where `error.__traceback__` is still whole."""
    _explain(error)
    kind = type(error)
    pickled, reason = _pickle(error)
    return (
        str(kind.__module__),
        kind.__qualname__,
        _text(error),
        _traceback(error),
        pickled,
        reason,
        _notes(error),
        _chain(error),
    )


def decode_exception(fields: tuple[Any, ...]) -> BaseException:
    """The exception to raise in the parent. Extra elements at the end of `fields` are ignored."""
    module, qualname, text, trace, pickled, reason, notes, *_ = fields
    error: Any = None
    if pickled is not None:
        try:
            error = _pickler.loads(pickled)
        except (Exception, SystemExit, GeneratorExit) as why:
            reason = f"it could not be unpickled here: {type(why).__name__}: {_text(why)}"
        else:
            if not isinstance(error, BaseException):
                reason = f"its pickle is a {type(error).__name__}, not an exception"
    if not isinstance(error, BaseException):
        error = _stand_in(module, qualname, text, trace, reason, notes)
    received: BaseException = error
    received.__cause__ = _remote_traceback(trace)
    return received


def _stand_in(
    module: str, qualname: str, text: str, trace: str, reason: str, notes: tuple[str, ...]
) -> BaseException:
    from shoal.errors import RemoteError

    name = qualname if module in ("builtins", "__main__") else f"{module}.{qualname}"
    error: Any = RemoteError(name, text, trace, reason)
    if notes:
        error.__notes__ = list(notes)
    stand_in: BaseException = error
    return stand_in


def _remote_traceback(trace: str) -> BaseException:
    from multiprocessing import pool

    shown: BaseException = pool.RemoteTraceback(f'\n"""\n{trace}"""')  # type: ignore[attr-defined]
    return shown


def _explain(error: BaseException) -> None:
    """Add to a NameError why the definitions do not include the name."""
    from shoal._pickling import _applied

    if _applied.current is None or not isinstance(error, (NameError, AttributeError)):
        return
    why = _applied.current.explain(error)
    if why is None or not error.args or not isinstance(error.args[0], str):
        return
    if not error.args[0].endswith(why):
        error.args = (f"{error.args[0]}: {why}", *error.args[1:])


def _pickle(error: BaseException) -> tuple[bytes | None, str]:
    try:
        return _pickler.dumps_in_band(error, None), ""
    except (Exception, SystemExit, GeneratorExit) as why:
        return None, f"it could not be pickled: {type(why).__name__}: {_text(why)}"


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException as why:
        return f"<str() of it raises {type(why).__name__}>"


def _places(error: BaseException) -> Iterator[str]:
    """The lines of the traceback, without calling anything that could raise."""
    part = error.__traceback__
    while part is not None:
        code = part.tb_frame.f_code
        yield f'  File "{code.co_filename}", line {part.tb_lineno}, in {code.co_name}\n'
        part = part.tb_next


def _traceback(error: BaseException) -> str:
    import traceback

    try:
        return "".join(traceback.format_exception(type(error), error, error.__traceback__))
    except BaseException as why:  # a user's __str__, __repr__ or source loader
        return "".join(
            [
                "Traceback (most recent call last):\n",
                *_places(error),
                f"{type(error).__qualname__}: {_text(error)}\n",
                f"(formatting it raised {type(why).__name__})\n",
            ]
        )


def _notes(error: BaseException) -> tuple[str, ...]:
    try:
        notes = getattr(error, "__notes__", ())
        return tuple(str(note) for note in notes)
    except Exception:
        return ()


def _chain(error: BaseException) -> tuple[str, ...]:
    lines: list[str] = []
    seen = {id(error)}
    following: BaseException | None = error
    while following is not None and len(lines) < _LONGEST_CHAIN:
        cause = following.__cause__
        if cause is None and not following.__suppress_context__:
            cause = following.__context__
        following = None if cause is None or id(cause) in seen else cause
        if following is not None:
            seen.add(id(following))
            lines.append(f"{type(following).__qualname__}: {_text(following)}")
    return tuple(lines)
