# SPDX-License-Identifier: Apache-2.0
"""Model of a record (src/arena/record.hpp): all interleavings of its operations, with deaths.

A record has an owner word, two words of holders' bits and one word of links. The second word lies
in an extension, which the first member that needs it makes and links. Members run small programs.
Each step of a program is one access to shared memory, as in the C++ code. `explore()` visits every
state that can be reached, however the steps interleave; with `deaths`, each member may also die
before any of its steps, and is then reaped, step by step, while the others go on. A reaper may die
as well: then reaping starts over.

It stops at the first state in which

- a record has ended although a member holds it (a `Violation`),
- a member writes to memory that is used for something else by now (a `Violation`),
- nothing can happen any more, and the record or an extension is left (a `Violation`: a leak).

Operations that a program may contain:

    send:0    makes message 0 refer to the record, and sends it
    receive:0 takes message 0, holds the record, then removes the message's link
    hold      holds the record by a handle that nobody keeps: it may have ended, at any step
    drop      ends this member's hold, if it has one
    share     when the record has ended: makes a new record of its memory, and holds that one
    overwrite when the record has ended: uses its memory for other data
    end:0     when the receiver of message 0 is gone: removes the message's link, as whoever ends a
              queue does

Variants other than `good` leave out one part of the protocol. The test finds each of them wrong.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

RECORD, ENDED, DATA = "record", "ended", "data"
LIVE, DEAD, DONE = "live", "dead", "done"
NOT_SENT, HELD_BY, SENT, GONE = "not sent", "held by", "sent", "gone"

VARIANTS = {
    "good": "as built",
    "owner before bit": "hold stores the new version first, then the bit",
    "no version": "settle ends any record that it finds, whatever happened to it meanwhile",
    "versions return": "each record begins with the same version",
    "no tag": "hold sets its bit without looking whether the word still belongs to the record",
    "settle only after a bit": "who removes a link does not look whether it was the last reference",
    "reap without settle": "the reaper clears the dead member's bit and leaves it at that",
    "extensions forgotten": "the reaper does not look for extensions that were made and not linked",
}


class Violation(Exception):
    """What went wrong; `path` has the last states before it."""

    def __init__(self, what: str, path: list[State]) -> None:
        super().__init__(what)
        self.path = path


class Process(NamedTuple):
    """A member. The registers are what it has read and not used yet."""

    step: int
    life: str
    holds: int  # the record (its number) that this member holds; -1: none
    version: int  # register: the version that it has read; -1: there was no record
    number: int  # register: the record whose word it has read
    bits: int  # register: the bits in that word


class State(NamedTuple):
    kind: str  # what the memory is used for
    version: int
    number: int  # how many records were made of this memory before, as the tag in the words
    last_version: int  # given out so far
    bits: tuple[int, int]
    links: int  # bit m: message m refers to the record
    extended: bool  # there is a second word
    strays: int  # bit m: member m has made an extension and not linked it yet
    messages: tuple[tuple[str, int], ...]
    processes: tuple[Process, ...]


class Program(NamedTuple):
    word: int  # which of the two words has this member's bit
    steps: tuple[tuple[str, int], ...]
    holds_at_first: bool = False
    is_mortal: bool = True


def program(
    word: int, *operations: str, holds_at_first: bool = False, is_mortal: bool = True
) -> Program:
    steps: list[tuple[str, int]] = []
    for operation in operations:
        name, _, argument = operation.partition(":")
        message = int(argument or 0)
        steps += [(step, message) for step in STEPS[name]]
    return Program(word, tuple(steps), holds_at_first, is_mortal)


HOLD = (
    "read owner",
    "make extension",
    "link extension",
    "read word",
    "read owner again",
    "set bit",
    "store version",
)
SETTLE = ("read version", "look at word 0", "look at word 1", "look at links", "end record")
# As SETTLE, but the member's own bit does not count: it drops what nobody else holds in one step.
TAKE = ("read version first", "others in word 0", "others in word 1", "any link", "take record")
STEPS = {
    "send": ("set link", "store link's version", "publish"),
    "receive": ("take", *HOLD, "unlink", *SETTLE),
    "hold": HOLD,
    "drop": ("begin to drop", *TAKE, "clear bit", *SETTLE),
    "share": ("share",),
    "overwrite": ("overwrite",),
    "end": ("take from the queue", "unlink", *SETTLE),
}
REAP = tuple(
    (step, 0)
    for step in (
        "free the dead's extension",
        "clear the dead's bit",
        *SETTLE,
        "end the dead's messages",
        *SETTLE,
        "reaped",
    )
)


class Model:
    def __init__(self, programs: list[Program], variant: str = "good", deaths: bool = True) -> None:
        self.programs = programs
        self.variant = variant
        self.deaths = deaths
        self.senders = self.who_does("set link")
        self.receivers = self.who_does("take")

    def who_does(self, step: str) -> dict[int, int]:
        return {
            message: member
            for member, p in enumerate(self.programs)
            for name, message in p.steps
            if name == step
        }

    def first_state(self) -> State:
        bits = [0, 0]
        for member, p in enumerate(self.programs):
            if p.holds_at_first:
                bits[p.word] |= 1 << member
        processes = tuple(
            Process(0, LIVE, 0 if p.holds_at_first else -1, -1, -1, 0) for p in self.programs
        )
        messages = tuple((NOT_SENT, -1) for _ in self.senders)
        return State(RECORD, 1, 0, 1, (bits[0], bits[1]), 0, bits[1] != 0, 0, messages, processes)

    # ---- All next states

    def next_states(self, state: State) -> list[State]:
        states: list[State] = []
        for member, process in enumerate(state.processes):
            if process.life == DONE:
                continue
            steps = self.programs[member].steps if process.life == LIVE else REAP
            if process.step >= len(steps):
                states.append(put(state, member, process._replace(life=DONE)))
                continue
            mortal = self.deaths and self.programs[member].is_mortal
            if mortal and (process.life == LIVE or process.step > 0):
                states.append(put(state, member, Process(0, DEAD, -1, -1, -1, 0)))
            name, message = steps[process.step]
            states += self.run(name, message, member, process, state)
        return states

    def run(self, name: str, message: int, me: int, process: Process, state: State) -> list[State]:
        """The states after this step; none: it waits."""
        after = process._replace(step=process.step + 1)
        word = self.programs[me].word
        mine = 1 << me

        def go(target: str, **registers: int) -> Process:
            """To the nearest step of this name, backwards or forwards."""
            steps = self.programs[me].steps if process.life == LIVE else REAP
            at = [i for i, (step, _) in enumerate(steps) if step == target]
            back = [i for i in at if i <= process.step]
            return process._replace(step=back[-1] if back else at[0], **registers)

        def skip(count: int) -> Process:
            return process._replace(step=process.step + count)

        # -- hold
        if name == "read owner":
            if state.kind != RECORD:
                return [put(state, me, skip(len(HOLD)))]
            return [put(state, me, after._replace(version=state.version))]
        if name == "make extension":
            if word == 0 or state.extended:
                return [put(state, me, skip(2))]
            made = state._replace(strays=state.strays | mine)
            return [put(made, me, after._replace(number=state.number))]
        if name == "link extension":
            # Not linked: another member was faster, or the record has ended. Then it is freed.
            same = state.kind == RECORD and state.number == process.number
            linked = state._replace(strays=state.strays & ~mine, extended=state.extended or same)
            return [put(linked, me, after)]
        if name == "read word":
            if word == 1 and not state.extended:
                return [put(state, me, go("read owner"))]
            if self.variant == "owner before bit":
                return [put(state, me, after)]
            return [put(state, me, after._replace(number=state.number, bits=state.bits[word]))]
        if name == "read owner again":
            same = state.kind == RECORD and state.version == process.version
            return [put(state, me, after if same else go("read owner"))]
        if name == "set bit":
            if self.variant == "owner before bit":
                return self.store_version(me, process, after, go("read owner"), state)
            if process.bits & mine:
                return [put(state, me, after)]
            same = state.number == process.number and state.kind != DATA
            if not same and self.variant != "no tag":
                return [put(state, me, go("read owner"))]
            if state.kind == DATA:
                raise Violation(
                    "a member writes to memory that is used for something else", [state]
                )
            if state.bits[word] != process.bits:
                return [put(state, me, go("read owner"))]
            return [put(set_bits(state, word, state.bits[word] | mine), me, after)]
        if name == "store version":
            if self.variant == "owner before bit":
                held = after._replace(holds=state.number)
                return [put(set_bits(state, word, state.bits[word] | mine), me, held)]
            held = after._replace(holds=state.number)
            return self.store_version(me, process, held, go("read owner"), state)

        # -- drop
        if name == "begin to drop":
            if process.holds < 0:
                return [put(state, me, skip(2 + len(TAKE) + len(SETTLE)))]
            return [put(state, me, after._replace(holds=-1))]
        if name == "read version first":
            return [put(state, me, after._replace(version=state.version))]
        if name == "others in word 0":
            others = state.bits[0] & ~(mine if word == 0 else 0)
            return [put(state, me, skip(4) if others else after)]
        if name == "others in word 1":
            others = state.bits[1] & ~(mine if word == 1 else 0)
            return [put(state, me, skip(3) if others else after)]
        if name == "any link":
            return [put(state, me, skip(2) if state.links else after)]
        if name == "take record":
            same = self.variant == "no version" or state.version == process.version
            if state.kind != RECORD or not same:
                return [put(state, me, process._replace(step=process.step - 4))]
            taken = state._replace(kind=ENDED, extended=False)
            return [put(taken, me, skip(2 + len(SETTLE)))]
        if name == "clear bit":
            return [put(set_bits(state, word, state.bits[word] & ~mine), me, after)]

        # -- settle
        if name == "read version":
            if state.kind != RECORD:
                return [put(state, me, skip(len(SETTLE)))]
            return [put(state, me, after._replace(version=state.version))]
        if name == "look at word 0":
            return [put(state, me, after if state.bits[0] == 0 else skip(4))]
        if name == "look at word 1":
            return [put(state, me, after if state.bits[1] == 0 else skip(3))]
        if name == "look at links":
            return [put(state, me, after if state.links == 0 else skip(2))]
        if name == "end record":
            same = self.variant == "no version" or state.version == process.version
            if state.kind != RECORD or not same:
                return [put(state, me, process._replace(step=process.step - 4))]
            return [put(state._replace(kind=ENDED, extended=False), me, after)]

        # -- messages
        if name == "set link":
            linked = state._replace(links=state.links | 1 << message)
            return [put(set_message(linked, message, HELD_BY, me), me, after)]
        if name == "store link's version":
            version = state.last_version + 1
            return [put(state._replace(version=version, last_version=version), me, after)]
        if name == "publish":
            return [put(set_message(state, message, SENT), me, after)]
        if name == "take":
            if state.messages[message][0] == SENT:
                return [put(set_message(state, message, HELD_BY, me), me, after)]
            if state.messages[message][0] == GONE:
                return [put(state, me, process._replace(life=DONE))]
            return []
        if name == "take from the queue":
            if state.messages[message][0] == GONE:
                return [put(state, me, process._replace(life=DONE))]
            receiver = state.processes[self.receivers[message]]
            if receiver.life == DONE and state.messages[message][0] == SENT:
                return [put(set_message(state, message, HELD_BY, me), me, after)]
            return []
        if name == "unlink":
            unlinked = state._replace(links=state.links & ~(1 << message))
            last = after if self.variant != "settle only after a bit" else skip(1 + len(SETTLE))
            return [put(set_message(unlinked, message, GONE), me, last)]

        # -- the memory used again
        if name == "share":
            if state.kind != ENDED:
                return []
            version = 1 if self.variant == "versions return" else state.last_version + 1
            fresh = state._replace(
                kind=RECORD,
                version=version,
                number=state.number + 1,
                last_version=max(version, state.last_version),
                links=0,
                extended=word == 1,
            )
            fresh = set_bits(set_bits(fresh, 1 - word, 0), word, mine)
            return [put(fresh, me, after._replace(holds=fresh.number))]
        if name == "overwrite":
            return [put(state._replace(kind=DATA), me, after)] if state.kind == ENDED else []

        # -- reaping
        if name == "free the dead's extension":
            if self.variant == "extensions forgotten":
                return [put(state, me, after)]
            return [put(state._replace(strays=state.strays & ~mine), me, after)]
        if name == "clear the dead's bit":
            cleared = state
            if state.kind == RECORD and state.bits[word] & mine:
                cleared = set_bits(state, word, state.bits[word] & ~mine)
            only_bit = self.variant == "reap without settle"
            return [put(cleared, me, skip(1 + len(SETTLE)) if only_bit else after)]
        if name == "end the dead's messages":
            only_bit = self.variant == "reap without settle"
            last = skip(1 + len(SETTLE)) if only_bit else after
            return [put(self.end_messages(state, me), me, last)]
        assert name == "reaped"
        return [put(state, me, process._replace(life=DONE))]

    @staticmethod
    def store_version(
        me: int, process: Process, done: Process, again: Process, state: State
    ) -> list[State]:
        if state.kind != RECORD or state.version != process.version:
            return [put(state, me, again)]
        version = state.last_version + 1
        return [put(state._replace(version=version, last_version=version), me, done)]

    def end_messages(self, state: State, dead: int) -> State:
        """Ends what the dead member has in hand, or can neither send nor receive any more."""
        for message, (where, who) in enumerate(state.messages):
            in_hand = where == HELD_BY and who == dead
            never_sent = where == NOT_SENT and self.senders[message] == dead
            not_received = where == SENT and self.receivers.get(message, dead) == dead
            if in_hand or never_sent or not_received:
                state = state._replace(links=state.links & ~(1 << message))
                state = set_message(state, message, GONE)
        return state


def put(state: State, member: int, process: Process) -> State:
    processes = state.processes
    return state._replace(processes=(*processes[:member], process, *processes[member + 1 :]))


def set_bits(state: State, word: int, bits: int) -> State:
    return state._replace(bits=(bits, state.bits[1]) if word == 0 else (state.bits[0], bits))


def set_message(state: State, message: int, where: str, who: int = -1) -> State:
    messages = state.messages
    return state._replace(messages=(*messages[:message], (where, who), *messages[message + 1 :]))


def explore(model: Model) -> int:
    """Visits all states; returns how many there are. Raises Violation."""
    first = model.first_state()
    before: dict[State, State | None] = {first: None}
    open_states = deque([first])

    def path_to(state: State | None) -> list[State]:
        path: list[State] = []
        while state is not None and len(path) < 12:
            path.append(state)
            state = before[state]
        return path[::-1]

    while open_states:
        state = open_states.popleft()
        for member, process in enumerate(state.processes):
            over = state.kind != RECORD or process.holds != state.number
            if process.life == LIVE and process.holds >= 0 and over:
                raise Violation(f"a record has ended that member {member} holds", path_to(state))
        try:
            following = model.next_states(state)
        except Violation as found:
            raise Violation(str(found), path_to(state)) from None
        if not following and state.kind == RECORD:
            raise Violation("a record is left that nobody holds", path_to(state))
        if not following and state.strays != 0:
            raise Violation("an extension is left that belongs to no record", path_to(state))
        for next_state in following:
            if next_state not in before:
                before[next_state] = state
                open_states.append(next_state)
    return len(before)
