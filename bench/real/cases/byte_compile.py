# SPDX-License-Identifier: Apache-2.0
"""compileall: a tree of modules compiled by worker processes, as installers do it."""

from case import STDLIB, Case, files_of
from inputs import sources

CASES = [
    Case(
        name="compileall",
        title="compileall -j 2",
        group=STDLIB,
        parallel_by="ProcessPoolExecutor.map",
        prepare=sources(150, quick=6),
        arguments=["-m", "compileall", "-q", "-j", "2", "tree"],
        outcome=files_of("tree", "*.pyc"),
    )
]
