# SPDX-License-Identifier: Apache-2.0
"""What does it cost to take a lock, read a shared value, count, or look at a flag?

The drop-in's classes against the standard library's, of a fork context on both sides. A row that
compares two ways of doing the same thing (a locked increment and `Atomic.add`, a RawValue and a
Flag) uses one way on each side.

Unfair would be: to time the loop of one side inside a function and of the other at the top level of
a module (both are functions over a range made before the clock starts); to have one side's object
in use elsewhere. The row with two processes is the exception: there both sides contend.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from measure import SHOAL, Row, Sample, Scale, fork_context


def _best(loop: Callable[[range], None], scale: Scale) -> float:
    """Nanoseconds per iteration, in the best of several runs of the loop."""
    turns = range(scale.pick(200_000, 1_000))
    times = []
    for _ in range(scale.pick(7, 2)):
        started = time.perf_counter()
        loop(turns)
        times.append(time.perf_counter() - started)
    return min(times) / len(turns) * 1e9


def with_lock(side: str, scale: Scale) -> Sample:
    lock = fork_context(side).Lock()

    def loop(turns: range) -> None:
        for _ in turns:
            with lock:
                pass

    return Sample(_best(loop, scale), repr(lock))


def value_read(side: str, scale: Scale) -> Sample:
    value = fork_context(side).Value("i", 7)

    def loop(turns: range) -> None:
        for _ in turns:
            value.value

    return Sample(_best(loop, scale), value.value)


def value_write(side: str, scale: Scale) -> Sample:
    value = fork_context(side).Value("i", 7)

    def loop(turns: range) -> None:
        for _ in turns:
            value.value = 8

    return Sample(_best(loop, scale), value.value)


def locked_increment(side: str, scale: Scale) -> Sample:
    value = fork_context(side).Value("q", 0)

    def loop(turns: range) -> None:
        for _ in turns:
            with value.get_lock():
                value.value += 1

    return Sample(_best(loop, scale), value.value)


def increment(side: str, scale: Scale) -> Sample:
    """Counting between processes: a locked increment, and `Atomic.add`."""
    if side != SHOAL:
        return locked_increment(side, scale)
    import shoal

    total = shoal.Atomic(0)

    def loop(turns: range) -> None:
        for _ in turns:
            total.add(1)

    return Sample(_best(loop, scale), total.value)


def look_at_flag(side: str, scale: Scale) -> Sample:
    """The flag of a search that another process may end: a RawValue, and a Flag."""
    if side == SHOAL:
        import shoal

        flag = shoal.Flag()

        def loop(turns: range) -> None:
            for _ in turns:
                if flag.is_set():
                    break

        return Sample(_best(loop, scale), False)
    value = fork_context(side).RawValue("i", 0)

    def stock_loop(turns: range) -> None:
        for _ in turns:
            if value.value:
                break

    return Sample(_best(stock_loop, scale), False)


def contended(side: str, scale: Scale) -> Sample:
    """Two processes take the same lock all the time; time per acquisition, counting both."""
    context = fork_context(side)
    turns = scale.pick(100_000, 500)
    lock, total, ready = context.Lock(), context.RawValue("q", 0), context.Barrier(3)

    def work() -> None:
        ready.wait()
        for _ in range(turns):
            with lock:
                total.value += 1

    processes = [context.Process(target=work) for _ in range(2)]
    for process in processes:
        process.start()
    ready.wait()
    started = time.perf_counter()
    for process in processes:
        process.join()
    seconds = time.perf_counter() - started
    return Sample(seconds / (2 * turns) * 1e9, total.value)


ROWS = [
    Row("lock", "`with Lock`", "ns", with_lock, target=2),
    Row("lock-contended", "`with Lock: total.value += 1`, two processes", "ns", contended),
    Row("value-read", "`Value('i').value`", "ns", value_read, target=2.5),
    Row("value-write", "`Value('i').value = 8`", "ns", value_write),
    Row("locked-increment", "`with v.get_lock(): v.value += 1`", "ns", locked_increment),
    Row("increment", "locked increment against `Atomic.add`", "ns", increment, target=8),
    Row("flag", "`RawValue.value` against `Flag.is_set()`", "ns", look_at_flag, target=1),
]
