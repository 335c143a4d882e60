# SPDX-License-Identifier: Apache-2.0
"""Endless inputs: read only as far ahead as count and bytes allow."""

from __future__ import annotations

import functools
import itertools
import time

import pytest
import shoal
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


def test_large_items_are_bounded_by_their_bytes(kind, tmp_path, wait_until):
    """64 MiB of arguments are on their way while no task ends."""
    taken = []
    go_on = tmp_path / "go on"

    def items():
        while True:
            taken.append(None)
            yield bytes(4_000_000)

    with make_pool(kind) as pool:
        results = pool.imap(functools.partial(tasks.size_when_told, str(go_on)), items())
        wait_until(lambda: len(taken) >= 16, "the first are sent")
        time.sleep(0.05)  # for more, if any were to come
        assert len(taken) <= 20
        go_on.touch()
        assert [next(results) for _ in range(20)] == [4_000_000] * 20


# ---- The end of a pool with inputs that nobody has fetched to the end ----------------------------


def test_shutdown_completes_a_map_whose_input_was_not_fetched(kind):
    """An input without a length is read ahead of the caller only so far, until the pool ends."""
    with make_executor(kind) as executor:
        results = executor.map(tasks.square, iter(range(70_000)))
        assert next(results) == 0
    assert list(results) == [i * i for i in range(1, 70_000)]


@pytest.mark.parametrize("sized", [True, False])
def test_shutdown_leaves_what_a_buffersize_held_back(kind, sized):
    with make_executor(kind) as executor:
        items = range(100)
        results = executor.map(tasks.square, items if sized else iter(items), buffersize=3)
        assert next(results) == 0
    with pytest.raises(shoal.PoolClosed):
        for i, square in enumerate(results, 1):
            assert i < 5 and square == i * i


@pytest.mark.parametrize("method", ["imap", "imap_unordered"])
@pytest.mark.parametrize("sized", [True, False])
def test_join_completes_an_input_that_nobody_fetches(kind, method, sized):
    pool = make_pool(kind)
    items = range(70_000)
    results = getattr(pool, method)(tasks.square, items if sized else iter(items))
    pool.close()
    pool.join()
    assert sorted(results) == [i * i for i in items]


@pytest.mark.parametrize("method", ["imap", "imap_unordered"])
def test_join_ends_with_an_endless_input_that_is_bounded(kind, method):
    pool = make_pool(kind)
    results = getattr(pool, method)(tasks.square, itertools.count(), buffersize=10)
    first = next(results)
    pool.close()
    pool.join()
    with pytest.raises(shoal.PoolClosed):
        for _ in range(20):
            next(results)
    assert first in [i * i for i in range(10)]
