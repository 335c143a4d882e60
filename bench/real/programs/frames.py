# SPDX-License-Identifier: Apache-2.0
"""A function of each row of a table: frames.py ROWS."""

import math
import sys

import numpy as np
import pandas
from pandarallel import pandarallel


def distance(row):
    return math.hypot(row.x - 0.5, row.y - 0.5) + math.sin(row.z)


if __name__ == "__main__":
    pandarallel.initialize(nb_workers=2, progress_bar=False, verbose=0)
    random = np.random.default_rng(1)
    table = pandas.DataFrame(random.random((int(sys.argv[1]), 3)), columns=["x", "y", "z"])
    found = table.parallel_apply(distance, axis=1)
    print(len(found), f"{found.sum():.9f}", f"{found.max():.12f}")
