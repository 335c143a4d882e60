# SPDX-License-Identifier: Apache-2.0
"""Senders and receivers of one pipe, killed at random: the totals must come out."""

from __future__ import annotations

import pytest
import shoal
from message_storm import storm


def payload(number: int) -> bytes:
    return bytes(number % 7 * 30_000 if number % 50 == 0 else number % 900)


@pytest.mark.parametrize("duplex", [False, True])
def test_random_kills_lose_only_what_the_dead_had_in_hand(duplex: bool) -> None:
    reader, writer = shoal.Pipe(duplex)
    storm(writer.send, reader.recv, payload, kills=100)
    assert not reader.poll()
