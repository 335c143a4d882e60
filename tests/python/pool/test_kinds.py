# SPDX-License-Identifier: Apache-2.0
"""The suites that run on every kind of pool mean what they say: a kind that promises workers that
are copies of this process has them. (Any thread that a test tool keeps in this process would turn
them into fresh interpreters, and the copies would go untested.)
"""

from __future__ import annotations

import os

import pytest
from pool_kinds import WATCHDOG, make_pool

pytestmark = WATCHDOG


@pytest.mark.parametrize("kind", ["shoal-zygote", "shoal-fork"])
def test_workers_are_copies_of_this_process(kind: str) -> None:
    with make_pool(kind, 1) as pool:
        assert pool.apply(abs, (-1,)) == 1
        assert pool.statistics()["template"] == "a snapshot of this process"


def test_clean_workers_are_not() -> None:
    with make_pool("shoal-clean", 1) as pool:
        assert pool.apply(os.getpid) != os.getpid()
        assert pool.statistics()["template"].startswith("a clean template, because Python threads")
