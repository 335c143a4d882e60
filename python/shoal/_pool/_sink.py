# SPDX-License-Identifier: Apache-2.0
"""Who hears of the outcome of a call: the two methods and the attribute that the core uses."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol
else:
    Protocol = object  # all that it is at run time


class Sink(Protocol):
    """Given to `Engine.submit`. A call is known to the core by its ticket, which it writes here."""

    _ticket: int

    def _launched(self, ticket: int) -> None:
        """The call had to wait until there was room; from here on this is its ticket."""

    def _deliver(self, ok: bool, value: Any) -> None:
        """The outcome: a result or, not `ok`, an exception. Told once, or again when a signal
        handler raised in here.
        """
