# SPDX-License-Identifier: Apache-2.0
"""Base class of the drop-in's locks and queues. As in the standard library, they can be pickled
only for a child that is being spawned. From 3.11 on, those made for a fork context cannot be
pickled at all.
"""

from __future__ import annotations

import multiprocessing.context as stock_context
import sys

from shoal._runtime import _session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_context: Any = stock_context

_FORK_TEXT = (
    "A SemLock created in a fork context is being shared with a process in a spawn context. This"
    " is not supported. Please use the same context to create multiprocessing objects and Process."
)


def is_fork(ctx: Any) -> bool:
    """Whether an object made for this context may be shared only with forked processes."""
    context = _context._default_context.get_context() if ctx is None else ctx
    return bool(context.get_start_method() == "fork")


def check_spawning(obj: Any, name: str, made_for_fork: bool) -> None:
    """Raise the standard library's RuntimeError unless `obj` may be pickled now."""
    if _session.spawning_popen() is None:
        raise RuntimeError(
            f"{name} objects should only be shared between processes through inheritance"
        )
    if made_for_fork and sys.version_info >= (3, 11):
        raise RuntimeError(_FORK_TEXT)


class Shared:
    """An object that is made for a context, and can be pickled only for a child being spawned."""

    _is_fork_ctx = False  # an unpickled object keeps this default: it may be passed on

    def __init__(self, *arguments: Any, ctx: Any = None, **options: Any) -> None:
        if is_fork(ctx):
            self._is_fork_ctx = True

    def __reduce__(self) -> tuple[Any, ...]:
        check_spawning(self, type(self).__name__, self._is_fork_ctx)
        reduced: tuple[Any, ...] = super().__reduce__()  # type: ignore[assignment]
        return reduced
