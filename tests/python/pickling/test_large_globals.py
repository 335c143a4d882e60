# SPDX-License-Identifier: Apache-2.0
"""Functions that use a large array, or large bytes, of the main module: however workers start."""

from __future__ import annotations

import pytest

pytest.importorskip("numpy")

PROGRAM = """
import sys
import numpy as np
import shoal

C = np.arange(20_000.0).reshape(100, 200)
F = np.asfortranarray(C) + 1
PART = np.arange(40_000.0)[::2]
HELD = {"inside": [np.full(9_000, 7.0)]}
RAW = bytes(100_000)
ROOM = bytearray(b"x" * 100_000)

def look(i):
    C[0, 0] += 1  # the worker's own
    return (float(C[1, i]), float(F[1, i]), F.flags.f_contiguous, float(PART[i]),
            float(HELD["inside"][0][i]), len(RAW), ROOM[i])

if __name__ == "__main__":
    wanted = [(200.0 + i, 201.0 + i, True, 2.0 * i, 7.0, 100_000, 120) for i in range(3)]
    with shoal.Pool(1, start=sys.argv[1]) as pool:
        assert pool.map(look, range(3)) == wanted
        assert pool.apply(look, (2,)) == wanted[2]
        late = np.ones((300, 300), order="F")  # made after the pool
        assert pool.apply(lambda: float(late.sum()) + late[:, 1].sum()) == 90_300
        closed = (lambda array: lambda: float(array[-1]))(np.arange(30_000.0))
        assert pool.apply(closed) == 29_999
    assert C[0, 0] == 0
"""


@pytest.mark.parametrize("start", ["zygote", "fork", "spawn"])
def test_large_globals_travel_with_the_functions_that_use_them(interpreter, start: str) -> None:
    interpreter(PROGRAM, start).check()


@pytest.mark.parametrize("start", ["zygote", "spawn"])
def test_the_same_where_the_template_is_clean(interpreter, start: str) -> None:
    thread = (
        "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()"
    )
    interpreter(thread + PROGRAM, start).check()
