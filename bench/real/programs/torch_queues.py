# SPDX-License-Identifier: Apache-2.0
"""Tensors to a process and back through queues: torch_queues.py TENSORS."""

import sys

import torch
import torch.multiprocessing as mp


def double(tasks, results):
    torch.set_num_threads(1)
    for tensor in iter(tasks.get, None):
        results.put(tensor * 2)
    results.put(None)


if __name__ == "__main__":
    torch.set_num_threads(1)
    tasks, results = mp.Queue(8), mp.Queue(8)
    worker = mp.Process(target=double, args=(tasks, results))
    worker.start()
    total, waiting = 0.0, 0
    for number in range(int(sys.argv[1])):
        tasks.put(torch.full((1 << 21,), float(number)))
        waiting += 1
        if waiting == 4:
            total += float(results.get()[::4096].sum())
            waiting -= 1
    tasks.put(None)
    for tensor in iter(results.get, None):
        total += float(tensor[::4096].sum())
        del tensor
    worker.join()
    print(f"{total:.1f}", worker.exitcode)
