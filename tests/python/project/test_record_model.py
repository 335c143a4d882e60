# SPDX-License-Identifier: Apache-2.0
"""The protocol of records, and protocols that lack a part of it, in all interleavings."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from record_model import VARIANTS, Model, Program, Violation, explore, program

Scene = Callable[[], list[Program]]


def hand_over() -> list[Program]:
    """Two members, in two words; the record goes from one to the other by a message."""
    return [
        program(0, "send:0", "drop", holds_at_first=True),
        program(1, "receive:0", "drop"),
        program(0, "end:0", is_mortal=False),
    ]


def late_hold() -> list[Program]:
    """The last holder drops while another holds by an old handle; the memory is a record again."""
    return [
        program(0, "drop", holds_at_first=True, is_mortal=False),
        program(0, "hold", "drop"),
        program(1, "share", "drop", is_mortal=False),
    ]


def overwritten() -> list[Program]:
    """As late_hold(), but the memory is used for other data."""
    return [
        program(0, "drop", holds_at_first=True, is_mortal=False),
        program(1, "hold", "drop"),
        program(1, "overwrite", is_mortal=False),
    ]


def last_two() -> list[Program]:
    """Two holders drop at once; when one of the two is late, the memory is a record again."""
    return [
        program(0, "drop", holds_at_first=True),
        program(1, "drop", holds_at_first=True),
        program(0, "share", "drop", is_mortal=False),
    ]


def passed_on() -> list[Program]:
    """A message, and a second one from the receiver of the first to a member in the same word."""
    return [
        program(0, "send:0", "drop", holds_at_first=True),
        program(1, "receive:0", "send:1", "drop"),
        program(0, "receive:1", "drop"),
        program(0, "end:0", is_mortal=False),
        program(0, "end:1", is_mortal=False),
    ]


# The scene that shows what is wrong with a variant.
SCENES = {
    "owner before bit": hand_over,
    "no version": hand_over,
    "versions return": last_two,
    "no tag": overwritten,
    "settle only after a bit": hand_over,
    "reap without settle": hand_over,
    "extensions forgotten": hand_over,
}


@pytest.mark.parametrize("programs", [hand_over, late_hold, overwritten, last_two])
def test_no_interleaving_ends_a_held_record_or_leaves_one(programs: Scene) -> None:
    assert explore(Model(programs())) > 1_000


def test_a_record_that_is_passed_on_ends_once() -> None:
    """With deaths if SHOAL_EVERY_ACCESS=1: that takes minutes."""
    deaths = os.environ.get("SHOAL_EVERY_ACCESS") == "1"
    assert explore(Model(passed_on(), deaths=deaths)) > 1_000


def test_each_variant_has_a_scene() -> None:
    assert {"good", *SCENES} == set(VARIANTS)


@pytest.mark.parametrize("variant", SCENES)
def test_each_part_of_the_protocol_is_needed(variant: str) -> None:
    with pytest.raises(Violation):
        explore(Model(SCENES[variant](), variant))
