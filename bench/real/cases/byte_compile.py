# SPDX-License-Identifier: Apache-2.0
"""compileall: a tree of modules compiled by worker processes, as installers do it."""

import sys

from case import STDLIB, Case, files_of, names_of
from inputs import sources

# Before 3.13 the flags of shared constants in a .pyc file depend on their reference counts.
same = files_of if sys.version_info >= (3, 13) else names_of

CASES = [
    Case(
        name="compileall",
        title="compileall -j 2",
        group=STDLIB,
        parallel_by="ProcessPoolExecutor.map",
        prepare=sources(150, quick=6),
        arguments=["-m", "compileall", "-q", "-j", "2", "tree"],
        outcome=same("tree", "*.pyc"),
    )
]
