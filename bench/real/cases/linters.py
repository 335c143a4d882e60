# SPDX-License-Identifier: Apache-2.0
"""pylint and flake8, both with two jobs, on modules of the standard library."""

from case import TOOLS, Case, lines_in_any_order
from inputs import sources

CASES = [
    Case(
        name="pylint",
        title="pylint -j 2",
        group=TOOLS,
        parallel_by="ProcessPoolExecutor.map, initializer",
        prepare=sources(8, quick=3),
        # Findings are not failures.
        arguments=["-m", "pylint", "-j", "2", "--exit-zero", "--score=n", "tree"],
        outcome=lines_in_any_order,
    ),
    Case(
        name="flake8",
        title="flake8 -j 2",
        group=TOOLS,
        parallel_by="Pool.imap_unordered, initializer",
        prepare=sources(50, quick=4),
        arguments=["-m", "flake8", "-j", "2", "--exit-zero", "tree"],
    ),
]
