# SPDX-License-Identifier: Apache-2.0
"""The global random generators of forked workers: each has a stream of its own, and the streams
follow from the program's state.

A copy of the program would draw the same numbers as every other copy; fresh entropy would make a
program that has seeded its generators give other numbers in each run. So a worker seeds `random`
and `numpy.random` by (the program's state, the worker's number in the program). The state is
looked at, not advanced: the program's own numbers stay as they were.

In fresh interpreters (spawn, forkserver) the generators are the main module's to seed, as in the
standard library. SHOAL_RESEED=0 in the environment leaves all generators alone.
"""

from __future__ import annotations

import os
import sys

from shoal._runtime._records import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_WORDS = 4  # of 32 bits, taken from a generator's state
_WORD = 1 << 32


class Seeds(NamedTuple):
    """What stands for the state of the program's generators; None: not imported, or inherited."""

    python: int | None = None
    numpy: tuple[int, ...] | None = None


def capture(inherited: bool) -> Seeds:
    """The state now. `inherited`: workers will be forks of this process, and see numpy's state
    themselves. (That of `random` is gone by then: CPython seeds it anew in each child of a fork.)
    """
    if os.environ.get("SHOAL_RESEED") == "0":
        return Seeds()
    return Seeds(_python_words(), None if inherited else _numpy_words(copy=True))


def apply(seeds: Seeds, number: tuple[int, ...]) -> None:
    """In a forked worker. `number`: its place among all processes of the program."""
    if os.environ.get("SHOAL_RESEED") == "0":
        return
    if seeds.python is not None and "random" in sys.modules:
        key = seeds.python
        for part in number:
            key = key * _WORD + part
        sys.modules["random"].seed(key)
    numpy = sys.modules.get("numpy.random")
    words = seeds.numpy or _numpy_words(copy=False)
    if numpy is not None and words is not None:
        try:
            numpy.seed([*words, *number])
        except (TypeError, ValueError):  # the program has set a generator of another kind
            pass


def _python_words() -> int | None:
    random: Any = sys.modules.get("random")
    if random is None or not hasattr(random, "Random"):  # the latter: it is just being imported
        return None
    copy = random.Random(0)
    try:
        copy.setstate(random.getstate())
    except Exception:  # the program has replaced its functions
        return None
    return int(copy.getrandbits(32 * _WORDS))


def _numpy_words(copy: bool) -> tuple[int, ...] | None:
    numpy: Any = sys.modules.get("numpy.random")
    if numpy is None or not hasattr(numpy, "get_state"):
        return None
    generator = numpy
    try:
        if copy:
            generator = numpy.RandomState(0)
            generator.set_state(numpy.get_state())
        drawn = generator.bytes(4 * _WORDS)
        return tuple(int.from_bytes(drawn[i : i + 4], "little") for i in range(0, len(drawn), 4))
    except Exception:  # a generator of another kind
        return None
