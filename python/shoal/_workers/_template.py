# SPDX-License-Identifier: Apache-2.0
"""The template of a pool's workers: what they are made from, and why. It is decided when the pool
starts, and `statistics()` reports it.
"""

from __future__ import annotations

import enum

from shoal._runtime._records import NamedTuple


class Kind(enum.Enum):
    """The values are texts for users."""

    UNDECIDED = ""
    SNAPSHOT = "a snapshot of this process"  # workers are forks of an agent that is a fork of it
    CLEAN = "a clean template"  # workers are forks of an agent that imported the same
    FRESH = "spawn: every worker is a fresh interpreter"
    FORK = "a fork of this process"  # workers are forks of the program itself: drop-in pools
    FORK_SERVER = "a fork of the standard library's fork server"


class Template(NamedTuple):
    kind: Kind
    reason: str = ""  # why it is not a snapshot

    @property
    def is_copy(self) -> bool:
        """Whether workers have this process's memory as it was when they, or their agent, were
        forked.
        """
        return self.kind is Kind.SNAPSHOT or self.kind is Kind.FORK

    def __str__(self) -> str:
        return f"{self.kind.value}, because {self.reason}" if self.reason else self.kind.value


UNDECIDED = Template(Kind.UNDECIDED)
