# SPDX-License-Identifier: Apache-2.0
"""Random programs over a pipe, run on the standard library's and on shoal's: the same results."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

import shoal
import shoal.multiprocessing as smp
from hypothesis import given
from hypothesis import strategies as st
from shoal._runtime._native import core

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=300),
    st.binary(max_size=300),
    st.binary(min_size=4_080, max_size=4_100),
)
OBJECTS = st.one_of(
    SCALARS, st.tuples(SCALARS, SCALARS), st.dictionaries(st.text(max_size=5), SCALARS)
)
ENDS = st.integers(0, 1)
STEPS = st.one_of(
    st.tuples(st.just("send"), ENDS, OBJECTS),
    st.tuples(st.just("send_bytes"), ENDS, st.binary(max_size=5_000), st.integers(-1, 20)),
    st.tuples(st.just("send_pickled"), ENDS, OBJECTS),
    st.tuples(st.sampled_from(["recv", "recv_bytes", "poll", "wait"]), ENDS),
    st.tuples(st.just("recv_into"), ENDS, st.sampled_from([3, 20_000])),
    st.tuples(st.just("recv_at_most"), ENDS, st.sampled_from([-1, 0, 100_000])),
    st.tuples(st.sampled_from(["dup", "close", "facts"]), ENDS),
)


def run(make: Callable[[bool], Any], duplex: bool, steps: list[Any], dup: Any) -> list[Any]:
    """What each step came to: a value, or the error's type and text."""
    ends = list(make(duplex))
    results = []
    for step in steps:
        try:
            results.append(one_step(ends, step, dup))
        except ConnectionResetError:
            # A socket closed with unread bytes: of a message that was too long a stock pipe leaves
            # the body there.
            results.append((EOFError, ""))
        except Exception as error:
            results.append((type(error), told_by(error)))
    for end in ends:
        end.close()
    return results


def told_by(error: Exception) -> object:
    """What the two must agree in beside the type."""
    if isinstance(error, multiprocessing.BufferTooShort):
        return readable(error.args[0])
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    return str(error)


def one_step(ends: list[Any], step: Any, dup: Any) -> Any:
    what, which, *rest = step
    end = ends[which]
    if what == "send":
        return end.send(rest[0])
    if what == "send_bytes":
        return end.send_bytes(*rest)
    if what == "send_pickled":
        return end.send_bytes(pickle.dumps(rest[0]))
    if what == "facts":
        return end.closed, end.readable, end.writable
    if what == "close":
        return end.close()
    if what == "wait":
        # (a message that was too long is gone here, and stays in a stock pipe; nobody can read it)
        return len(wait([end], 0)) if end.readable else None
    if what == "dup":
        ends[which] = dup(end) if isinstance(end, core.Connection) else stock_copy(end)
        return end.close()
    if not end.poll():  # nothing here waits
        return False
    if what == "recv_at_most":
        return readable(end.recv_bytes(*rest))
    if what == "recv_into":
        buffer = bytearray(rest[0])
        return readable(bytes(buffer[3 : 3 + end.recv_bytes_into(buffer, 3)]))
    return readable(getattr(end, what)())


def readable(got: Any) -> Any:
    """A pickle by what it means: picklers may write the same object differently."""
    if isinstance(got, bytes):
        try:
            return "pickle", pickle.loads(got)
        except Exception:
            return got
    return got


def stock_copy(end: Any) -> Any:
    return Connection(os.dup(end.fileno()), end.readable, end.writable)


def own_copy(end: Any) -> Any:
    """As it is unpickled, without the thread that passes descriptors."""
    rest = end._end, os.dup(end.fileno()), end.readable, end.writable
    return core.Connection.__new__(type(end), end._state, *rest)


@given(duplex=st.booleans(), steps=st.lists(STEPS, max_size=25), strangers=st.booleans())
def test_random_programs_do_the_same_on_both(duplex: bool, steps: Any, strangers: bool) -> None:
    expected = run(multiprocessing.Pipe, duplex, steps, stock_copy)
    # (a stock copy that reads sees the notes of large messages, as documented)
    short = all(len(pickle.dumps(step)) < 4_000 for step in steps)
    dup = stock_copy if strangers and short else own_copy
    for make in (shoal.Pipe, smp.Pipe):
        assert run(make, duplex, steps, dup) == expected
