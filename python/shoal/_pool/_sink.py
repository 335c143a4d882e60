# SPDX-License-Identifier: Apache-2.0
"""The interface of an object that receives the outcome of a call from the core."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol
else:
    Protocol = object  # at run time `typing` need not be imported


class Sink(Protocol):
    """Passed to `Engine.submit`. The core identifies a call by its ticket, and writes it here."""

    _ticket: int

    def _launched(self, ticket: int) -> None:
        """The call had waited for a free slot and has now been sent; `ticket` is its new ticket."""

    def _deliver(self, ok: bool, value: Any) -> None:
        """The outcome: a result or, if not `ok`, an exception. Called once, and again if a signal
        handler raised during the call.
        """
