# SPDX-License-Identifier: Apache-2.0
"""scipy.optimize with workers=2: it makes a multiprocessing.Pool for the call."""

from case import SCIENCE, Case, program

CASES = [
    Case(
        name="differential_evolution",
        title="scipy differential_evolution(workers=2)",
        group=SCIENCE,
        parallel_by="Pool.map, a call a generation",
        arguments=program("optimize.py", "differential_evolution", 40),
        quick_arguments=program("optimize.py", "differential_evolution", 2),
    ),
    Case(
        name="brute",
        title="scipy brute(workers=2)",
        group=SCIENCE,
        parallel_by="Pool.map, small tasks",
        arguments=program("optimize.py", "brute", 80),
        quick_arguments=program("optimize.py", "brute", 5),
    ),
]
