# SPDX-License-Identifier: Apache-2.0
"""Shoal's NamedTuple is typing's, as far as shoal uses it."""

from __future__ import annotations

import pickle
import typing

import pytest
from shoal._runtime import _records


class Ours(_records.NamedTuple):
    """What it is."""

    first: int
    second: str = "b"

    def both(self) -> str:
        return f"{self.first}{self.second}"


class Stock(typing.NamedTuple):
    first: int
    second: str = "b"


@pytest.mark.parametrize("values", [((1,), {}), ((1, "c"), {}), ((), {"second": "d", "first": 2})])
def test_it_is_a_tuple_with_names(values) -> None:
    ours, stock = Ours(*values[0], **values[1]), Stock(*values[0], **values[1])
    assert ours == stock and hash(ours) == hash(stock) and isinstance(ours, tuple)
    assert (ours.first, ours.second) == (stock.first, stock.second)
    assert repr(ours) == repr(stock).replace("Stock", "Ours")
    assert ours.both() == f"{stock.first}{stock.second}" and Ours.__doc__ == "What it is."
    assert ours._replace(first=7) == stock._replace(first=7)


def test_it_is_pickled_by_name() -> None:
    copy = pickle.loads(pickle.dumps(Ours(1)))
    assert type(copy) is Ours and copy == (1, "b")


@pytest.mark.parametrize(
    "values", [((), {}), ((1, 2, 3), {}), ((1,), {"third": 3}), ((1,), {"first": 3})]
)
def test_wrong_fields_are_refused(values) -> None:
    with pytest.raises(TypeError):
        Ours(*values[0], **values[1])
    with pytest.raises(TypeError):
        Stock(*values[0], **values[1])


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Ours(1).first = 2  # type: ignore[misc]
