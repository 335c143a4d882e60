# SPDX-License-Identifier: Apache-2.0
"""Statistics of parts of a large array, all of it given to each task: large_array.py SIZE."""

import sys

import numpy as np
from joblib import Parallel, delayed

BLOCKS = 20


def statistics_of(array, block):
    part = array[block::BLOCKS]
    return part.mean(), part.std(), np.partition(part, len(part) // 2)[len(part) // 2]


if __name__ == "__main__":
    values = np.random.default_rng(1).random(int(sys.argv[1]))
    tasks = (delayed(statistics_of)(values, block) for block in range(BLOCKS))
    for mean, deviation, median in Parallel(n_jobs=2)(tasks):
        print(f"{mean:.12f} {deviation:.12f} {median:.12f}")
