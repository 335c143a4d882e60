# SPDX-License-Identifier: Apache-2.0
"""torch: a DataLoader with worker processes, tensors through queues, and a pool of tensors."""

from case import TORCH, Case, program

CASES = [
    Case(
        name="torch_data_loader",
        title="torch DataLoader(num_workers=2)",
        group=TORCH,
        parallel_by="Process, Queue, Event of the fork context",
        arguments=program("torch_loader.py", 3000),
        quick_arguments=program("torch_loader.py", 64),
    ),
    Case(
        name="torch_queues",
        title="torch.multiprocessing queues of 8 MB tensors",
        group=TORCH,
        parallel_by="torch.multiprocessing Process, Queue",
        arguments=program("torch_queues.py", 200),
        quick_arguments=program("torch_queues.py", 4),
    ),
    Case(
        name="torch_spawn",
        title="torch.multiprocessing.spawn, shared parameters",
        group=TORCH,
        parallel_by="torch.multiprocessing.spawn, share_memory",
        arguments=program("torch_spawn.py", 300),
        quick_arguments=program("torch_spawn.py", 4),
    ),
]
