# SPDX-License-Identifier: Apache-2.0
"""The parameters of a worker, whether an agent or a keeper starts it."""

from __future__ import annotations

from shoal._runtime._records import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Plan(NamedTuple):
    """Plain values, so that they can be sent to a fresh interpreter."""

    pool: int  # handle of the pool's state
    context: dict[str, Any]  # see _context.py; empty: the worker is a copy of the client
    results_by_name: bool  # see Engine
