# SPDX-License-Identifier: Apache-2.0
"""Endless inputs: read only as far ahead as count and bytes allow."""

from __future__ import annotations

import itertools

import pytest
import tasks
from pool_kinds import SHOAL, WATCHDOG, make_executor, make_pool

pytestmark = WATCHDOG


@pytest.fixture(params=SHOAL)
def kind(request):
    return request.param


@pytest.mark.parametrize("method", ["imap", "imap_unordered"])
def test_endless_input_is_mapped_and_read_within_its_buffersize(kind, method):
    taken = itertools.count()
    with make_pool(kind) as pool:
        results = getattr(pool, method)(
            tasks.square, (next(taken) for _ in itertools.count()), buffersize=50
        )
        assert len([next(results) for _ in range(500)]) == 500
        assert next(taken) <= 500 + 51


def test_endless_input_without_a_buffersize_is_bounded(kind):
    taken = itertools.count()
    with make_executor(kind) as executor:
        results = executor.map(tasks.square, (next(taken) for _ in itertools.count()))
        assert [next(results) for _ in range(100)] == [i * i for i in range(100)]
        assert next(taken) <= 100 + 65_537
        results.close()


def test_large_items_are_bounded_by_their_bytes(kind):
    taken = itertools.count()
    with make_pool(kind) as pool:
        results = pool.imap(len, (bytes(4_000_000 + next(taken) * 0) for _ in itertools.count()))
        assert [next(results) for _ in range(20)] == [4_000_000] * 20
        assert next(taken) <= 20 + 40
