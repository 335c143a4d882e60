# SPDX-License-Identifier: Apache-2.0
"""tqdm's process_map, and p_tqdm, which uses pathos (the package multiprocess, not the standard
library's module)."""

from case import SCIENCE, Case, program

CASES = [
    Case(
        name="process_map",
        title="tqdm process_map, 4,000 tasks",
        group=SCIENCE,
        parallel_by="ProcessPoolExecutor.map, initializer, chunksize",
        arguments=program("progress.py", "process_map", 4000, 10_000),
        quick_arguments=program("progress.py", "process_map", 20, 100),
    ),
    Case(
        name="p_tqdm",
        title="p_tqdm p_map, 4,000 tasks",
        group=SCIENCE,
        parallel_by="pathos (multiprocess): not replaced",
        arguments=program("progress.py", "p_map", 4000, 10_000),
        quick_arguments=program("progress.py", "p_map", 20, 100),
    ),
]
