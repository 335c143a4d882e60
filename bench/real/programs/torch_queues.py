# SPDX-License-Identifier: Apache-2.0
"""Tensors to a process and back through queues: torch_queues.py TENSORS."""

import sys

import torch
import torch.multiprocessing as mp

AHEAD = 4


def double(tasks, results, done):
    torch.set_num_threads(1)
    for tensor in iter(tasks.get, None):
        results.put(tensor * 2)
    done.wait()  # torch fetches a tensor's memory from the process that sent it


if __name__ == "__main__":
    torch.set_num_threads(1)
    count = int(sys.argv[1])
    tasks, results, done = mp.Queue(), mp.Queue(), mp.Event()
    worker = mp.Process(target=double, args=(tasks, results, done))
    worker.start()
    total = 0.0
    for number in range(count + AHEAD):
        if number < count:
            tasks.put(torch.full((1 << 21,), float(number)))
        if number >= AHEAD:
            total += float(results.get()[::4096].sum())
    tasks.put(None)
    done.set()
    worker.join()
    print(f"{total:.1f}", worker.exitcode)
