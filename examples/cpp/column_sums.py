# SPDX-License-Identifier: Apache-2.0
"""Sends matrices to a C++ program through a channel of this session, and checks what comes back.

python examples/cpp/column_sums.py build/example/column_sums
"""

import os
import subprocess
import sys

import numpy as np
from shoal._runtime._native import core


def main(program: str) -> None:
    matrices = core.Channel("matrices")
    sums = core.Channel("sums")
    with subprocess.Popen([program, str(os.getpid())]) as partner:
        for columns in (3, 1_000):  # small arrays travel in the message, large ones beside it
            matrix = np.random.default_rng(columns).random((100, columns))
            matrices.send(matrix)
            answer = sums.receive(timeout=30)
            assert answer["rows"] == 100
            np.testing.assert_allclose(answer["sums"], matrix.sum(axis=0))
        matrices.close()
        assert partner.wait(30) == 0
    sums.remove()
    matrices.remove()
    print("the C++ program's sums are right")


if __name__ == "__main__":
    main(sys.argv[1])
