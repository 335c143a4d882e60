# SPDX-License-Identifier: Apache-2.0
"""How long does it take from making a pool to its first result, when the program has numpy loaded?

The comparison is with spawn: like shoal's zygote, it works whatever threads the program has, and it
is the only start method of the standard library that guarantees that. Fork is shown in addition.

Unfair would be: to time a second pool (the zygote is then warm; that figure has a separate row); to
leave numpy out of the task (spawn would not pay for importing it before it is used).
"""

from __future__ import annotations

import multiprocessing
import time
from typing import Any

from measure import SHOAL, Row, Sample, Scale
from tasks import numpy_sum


def first_pool(side: str, scale: Scale) -> Sample:
    import numpy

    numpy.arange(4).sum()
    return _start(side, "spawn")


def second_pool(side: str, scale: Scale) -> Sample:
    import numpy

    numpy.arange(4).sum()
    _start(side, "spawn")
    return _start(side, "spawn")


def first_pool_against_fork(side: str, scale: Scale) -> Sample:
    import numpy

    numpy.arange(4).sum()
    return _start(side, "fork")


def _start(side: str, method: str) -> Sample:
    pool: Any
    started = time.perf_counter()
    if side == SHOAL:
        import shoal

        pool = shoal.Pool(2)
    else:
        pool = multiprocessing.get_context(method).Pool(2)
    with pool:
        result = pool.apply(numpy_sum, (1_000,))
        seconds = time.perf_counter() - started
    return Sample(seconds * 1e3, result)


ROWS = [
    Row("start", "pool of 2 with numpy: creation to first result, against spawn", "ms",
        first_pool, target=10),
    Row("start-again", "the same for the program's second pool", "ms", second_pool),
    Row("start-fork", "the first pool, against fork", "ms", first_pool_against_fork),
]  # fmt: skip
