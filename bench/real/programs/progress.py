# SPDX-License-Identifier: Apache-2.0
"""Many short tasks with a progress bar: progress.py process_map|p_map TASKS COST."""

import sys
from functools import partial


def collatz_length(start, limit):
    length, number = 0, start + limit
    while number != 1:
        number = number // 2 if number % 2 == 0 else 3 * number + 1
        length += 1
    return length


if __name__ == "__main__":
    how, tasks, limit = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    task = partial(collatz_length, limit=limit)
    if how == "process_map":
        from tqdm.contrib.concurrent import process_map

        lengths = process_map(task, range(tasks), max_workers=2, chunksize=1)
    else:
        from p_tqdm import p_map

        lengths = p_map(task, range(tasks), num_cpus=2)
    print(len(lengths), sum(lengths), max(lengths))
