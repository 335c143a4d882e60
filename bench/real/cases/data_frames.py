# SPDX-License-Identifier: Apache-2.0
"""pandarallel and dask: functions over parts of a table or a bag, in processes."""

from case import SCIENCE, Case, program

CASES = [
    Case(
        name="pandarallel",
        title="pandarallel parallel_apply, 60,000 rows",
        group=SCIENCE,
        parallel_by="Pool.map_async of the fork context, Manager",
        arguments=program("frames.py", 60_000),
        quick_arguments=program("frames.py", 500),
    ),
    Case(
        name="dask_processes",
        title="dask.bag, scheduler processes",
        group=SCIENCE,
        parallel_by="ProcessPoolExecutor of the spawn context",
        arguments=program("dask_bag.py", "processes", 60_000),
        quick_arguments=program("dask_bag.py", "processes", 1000),
    ),
    Case(
        name="dask_distributed",
        title="dask.distributed, LocalCluster of 2 processes",
        group=SCIENCE,
        parallel_by="Process and Queue of the spawn context",
        arguments=program("dask_bag.py", "distributed", 60_000),
        quick_arguments=program("dask_bag.py", "distributed", 1000),
    ),
]
