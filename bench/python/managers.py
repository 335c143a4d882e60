# SPDX-License-Identifier: Apache-2.0
"""What does an access to an object of a manager cost?

The standard library's manager (a server process, one round trip for each access) against the
drop-in's, of a fork context on both sides, from the process that made the objects. Values are small
ints and a short text, so that the transport is measured and not pickling. In the last row two
processes change one dict at the same time.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from measure import Row, Sample, Scale, fork_context


def _each(loop: Callable[[range], None], scale: Scale) -> float:
    """Microseconds per iteration, in the best of several runs of the loop."""
    turns = range(scale.pick(5_000, 200))
    times = []
    for _ in range(scale.pick(7, 2)):
        started = time.perf_counter()
        loop(turns)
        times.append(time.perf_counter() - started)
    return min(times) / len(turns) * 1e6


def dict_get(side: str, scale: Scale) -> Sample:
    with fork_context(side).Manager() as manager:
        table = manager.dict({f"key{i}": i for i in range(100)})

        def loop(turns: range) -> None:
            for _ in turns:
                table["key7"]

        return Sample(_each(loop, scale), table["key7"])


def dict_set(side: str, scale: Scale) -> Sample:
    with fork_context(side).Manager() as manager:
        table = manager.dict({f"key{i}": i for i in range(100)})

        def loop(turns: range) -> None:
            for i in turns:
                table["key7"] = i

        return Sample(_each(loop, scale), table["key7"] + len(table))


def list_append(side: str, scale: Scale) -> Sample:
    with fork_context(side).Manager() as manager:
        values = manager.list()

        def loop(turns: range) -> None:
            for i in turns:
                values.append(i)

        return Sample(_each(loop, scale), sum(values[:]))


def namespace_get(side: str, scale: Scale) -> Sample:
    with fork_context(side).Manager() as manager:
        space = manager.Namespace(rate=7)

        def loop(turns: range) -> None:
            for _ in turns:
                space.rate

        return Sample(_each(loop, scale), space.rate)


def namespace_set(side: str, scale: Scale) -> Sample:
    with fork_context(side).Manager() as manager:
        space = manager.Namespace()

        def loop(turns: range) -> None:
            for i in turns:
                space.rate = i

        return Sample(_each(loop, scale), space.rate)


def start(side: str, scale: Scale) -> Sample:
    """Making a manager and a first object, and ending it."""
    context = fork_context(side)
    times = []
    for _ in range(scale.pick(9, 2)):
        started = time.perf_counter()
        with context.Manager() as manager:
            made = len(manager.list([1, 2, 3]))
        times.append(time.perf_counter() - started)
    return Sample(sorted(times)[len(times) // 2] * 1e3, made)


def contended(side: str, scale: Scale) -> Sample:
    """Two processes put keys into one dict; time per key, counting the keys of both."""
    context = fork_context(side)
    turns = scale.pick(5_000, 200)
    with context.Manager() as manager:
        table, ready = manager.dict(), context.Barrier(3)

        def work(first: int) -> None:
            table[first] = first  # makes the connection, if there is one
            ready.wait()
            for i in range(first, first + turns):
                table[i] = i

        processes = [context.Process(target=work, args=(n * turns,)) for n in range(2)]
        for process in processes:
            process.start()
        ready.wait()
        started = time.perf_counter()
        for process in processes:
            process.join()
        seconds = time.perf_counter() - started
        return Sample(seconds / (2 * turns) * 1e6, sum(table.values()))


ROWS = [
    Row("manager-dict-get", "`Manager().dict()[key]`", "us", dict_get, target=40),
    Row("manager-dict-set", "`Manager().dict()[key] = i`", "us", dict_set, target=30),
    Row("manager-list-append", "`Manager().list().append(i)`", "us", list_append, target=30),
    Row("manager-namespace", "`Manager().Namespace().x`", "us", namespace_get, target=40),
    Row("manager-namespace-set", "`Manager().Namespace().x = i`", "us", namespace_set),
    Row("manager-start", "a manager, one list, and the end", "ms", start),
    Row("manager-contended", "two processes put keys into one dict", "us", contended),
]
