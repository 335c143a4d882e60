# SPDX-License-Identifier: Apache-2.0
"""Random programs over a queue, checked against a list, with two processes' worth of handles."""

from __future__ import annotations

import pickle
import queue
from typing import Any

import shoal
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

VALUES = st.one_of(
    st.none(),
    st.integers(),
    st.text(max_size=20),
    st.binary(max_size=3_000),
    st.lists(st.integers(), max_size=5),
    st.complex_numbers(allow_nan=False),
)


class QueueMachine(RuleBasedStateMachine):
    """Bounded or not; every step by one of two handles of the same queue."""

    @initialize(maxsize=st.integers(0, 4), turns=st.integers(0, 2_047))
    def make(self, maxsize: int, turns: int) -> None:
        self.maxsize = maxsize
        self.made = shoal.JoinableQueue[Any](maxsize)
        self.handles = [self.made, pickle.loads(pickle.dumps(self.made))]
        self.model: list[Any] = []
        self.unfinished = turns
        for number in range(turns):  # somewhere in a lap of the ring
            self.made.put(number)
            assert self.made.get() == number

    @rule(value=VALUES, which=st.integers(0, 1))
    def put(self, value: Any, which: int) -> None:
        try:
            self.handles[which].put(value, block=False)
        except queue.Full:
            assert len(self.model) == self.maxsize > 0
        else:
            self.model.append(value)
            self.unfinished += 1

    @rule(values=st.lists(VALUES, max_size=6), which=st.integers(0, 1))
    def put_many(self, values: list[Any], which: int) -> None:
        room = self.maxsize - len(self.model) if self.maxsize else len(values)
        try:
            done = self.handles[which].put_many(values, block=False)
        except queue.Full:
            assert room == 0 < len(values)
            return
        assert done == min(room, len(values))
        self.model += values[:done]
        self.unfinished += done

    @rule(which=st.integers(0, 1))
    def get(self, which: int) -> None:
        try:
            got = self.handles[which].get_nowait()
        except queue.Empty:
            assert not self.model
        else:
            assert got == self.model.pop(0)

    @rule(limit=st.integers(1, 6), which=st.integers(0, 1))
    def get_many(self, limit: int, which: int) -> None:
        try:
            got = self.handles[which].get_many(limit, block=False)
        except queue.Empty:
            assert not self.model
        else:
            assert got == self.model[:limit]
            del self.model[:limit]

    @rule(which=st.integers(0, 1))
    def task_done(self, which: int) -> None:
        try:
            self.handles[which].task_done()
        except ValueError:
            assert self.unfinished == 0
        else:
            self.unfinished -= 1

    @invariant()
    def answers_agree(self) -> None:
        for handle in getattr(self, "handles", ()):
            assert handle.qsize() == len(self.model)
            assert handle.empty() == (not self.model)
            assert handle.full() == (len(self.model) == self.maxsize > 0)
            assert handle.join(timeout=0) == (self.unfinished == 0)


QueueMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
test_queue_agrees_with_a_list = QueueMachine.TestCase
