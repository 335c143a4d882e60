# SPDX-License-Identifier: Apache-2.0
"""What does it cost to get an object through a pipe to another process?

The drop-in's `Pipe` against the standard library's, both made by a fork context, with the same
code; one child process, and the parent measures.

Unfair would be: to time the start of the process (the clock starts when the first object has
arrived); to let the parent send, because its last objects may not have arrived when the clock stops
(it receives); to compare with a one-way pipe, which is faster on both sides.
"""

from __future__ import annotations

from exchange import megabyte_arrays, one_way
from exchange import ping_pong as measure_answers
from measure import Row, Sample, Scale, fork_context


def ping_pong(side: str, scale: Scale) -> Sample:
    context = fork_context(side)
    here, there = context.Pipe()
    return measure_answers(context, (here.send, here.recv), (there.send, there.recv), scale)


def small(side: str, scale: Scale) -> Sample:
    context = fork_context(side)
    here, there = context.Pipe()
    return one_way(context, there.send, here.recv, scale.pick(100_000, 1_000), int, int)


def arrays(side: str, scale: Scale) -> Sample:
    context = fork_context(side)
    here, there = context.Pipe()
    return one_way(context, there.send, here.recv, scale.pick(500, 10), *megabyte_arrays())


ROWS = [
    Row("pipe-ping-pong", "`Pipe` ping-pong with small ints, round trip", "us", ping_pong,
        target=2),
    Row("pipe-small", "`Pipe`, one sends, one receives, small ints, per object", "us", small,
        target=2),
    Row("pipe-arrays", "the same, arrays of 1 MB", "us", arrays, target=5),
]  # fmt: skip
