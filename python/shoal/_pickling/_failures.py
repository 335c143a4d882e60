# SPDX-License-Identifier: Apache-2.0
"""Tells a failure of the program's objects from the exception of a signal handler.

What cannot be pickled inside a definition is left out, for good. But a handler (of SIGALRM, say)
may raise anywhere, also inside a pickler; its exception must reach the program, and no name may be
left out for it. Nothing marks an exception as a handler's, so what has failed is tried once more.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def lasting_failure(attempt: Callable[[], object]) -> str | None:
    """Make the call. None if it works, or why it fails each time.

    An exception that does not come again is raised, whether or not the call then works.
    """
    failures: list[Exception] = []
    try:
        while len({type(failure) for failure in failures}) == len(failures):
            try:
                attempt()
            except Exception as error:
                failures.append(error)
            else:
                if failures:
                    raise failures[0]
                return None
        kind, why = type(failures[-1]), str(failures[-1])
        others = [failure for failure in failures if type(failure) is not kind]
        if others:
            raise others.pop()
        return why or kind.__name__
    finally:
        failures.clear()  # breaks the reference cycles with this frame, which is in the tracebacks
