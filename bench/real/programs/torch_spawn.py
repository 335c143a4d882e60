# SPDX-License-Identifier: Apache-2.0
"""Two processes add to one shared tensor, each to its half, and meet at a barrier each step."""

import sys

import torch
import torch.multiprocessing as mp


def add(rank, shared, barrier, steps):
    torch.set_num_threads(1)
    mine = shared[rank]
    for step in range(steps):
        mine += torch.arange(len(mine), dtype=mine.dtype) * (rank + 1)
        barrier.wait()
        mine += shared[1 - rank][:1] * 0 + step
        barrier.wait()


if __name__ == "__main__":
    steps = int(sys.argv[1])
    shared = torch.zeros(2, 100_000, dtype=torch.float64).share_memory_()
    barrier = mp.get_context("spawn").Barrier(2)
    mp.spawn(add, args=(shared, barrier, steps), nprocs=2)
    print([f"{float(row.sum()):.1f}" for row in shared])
