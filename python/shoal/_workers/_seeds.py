# SPDX-License-Identifier: Apache-2.0
"""Seeds the global random generators of forked workers. Each worker has its own stream, and the
streams are determined by the program's state.

Without reseeding, every worker would draw the same numbers. With fresh entropy, a program that has
seeded its generators would get different numbers in each run. So a worker seeds `random` and
`numpy.random` with the program's state and the worker's number in the program. The program's state
is read but not advanced, so the program's own numbers do not change.

In fresh interpreters (spawn, forkserver) the main module must seed the generators, as in the
standard library. SHOAL_RESEED=0 in the environment leaves all generators alone.
"""

from __future__ import annotations

import os
import sys

from shoal._runtime._records import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_WORDS = 4  # the number of 32-bit words that represent a generator's state
_WORD = 1 << 32


class Seeds(NamedTuple):
    """The state of the program's generators, as words; None: not imported, or inherited."""

    python: int | None = None
    numpy: tuple[int, ...] | None = None


def capture(inherited: bool) -> Seeds:
    """The current state. `inherited`: workers will be forks of this process, and read numpy's state
    themselves. (They cannot read that of `random`: CPython reseeds it in each forked child.)
    """
    if os.environ.get("SHOAL_RESEED") == "0":
        return Seeds()
    return Seeds(_python_words(), None if inherited else _numpy_words(copy=True))


def apply(seeds: Seeds, number: tuple[int, ...]) -> None:
    """In a forked worker: seed its generators. `number`: its number among all processes of the
    program.
    """
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
    if random is None or not hasattr(random, "Random"):  # not imported, or being imported
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
