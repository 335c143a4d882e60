# SPDX-License-Identifier: Apache-2.0
"""joblib with an array of 200 MB as an argument of every task."""

from case import SCIENCE, Case, program

CASES = [
    Case(
        name="joblib_array",
        title="joblib.Parallel, tasks with a 200 MB array",
        group=SCIENCE,
        parallel_by="joblib (loky), memory-mapped arguments",
        arguments=program("large_array.py", 25_000_000),
        quick_arguments=program("large_array.py", 500_000),
    )
]
