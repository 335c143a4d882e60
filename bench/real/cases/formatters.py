# SPDX-License-Identifier: Apache-2.0
"""black, isort, yapf and autopep8: each rewrites a tree with two workers."""

from case import TOOLS, Case, files_of
from inputs import sources

REWRITTEN = files_of("tree", "*.py")

CASES = [
    Case(
        name="black",
        title="black --workers 2",
        group=TOOLS,
        parallel_by="ProcessPoolExecutor in asyncio, Manager().Lock",
        prepare=sources(20, quick=3),
        arguments=["-m", "black", "--quiet", "--workers", "2", "tree"],
        outcome=REWRITTEN,
    ),
    Case(
        name="isort",
        title="isort -j 2",
        group=TOOLS,
        parallel_by="ProcessPoolExecutor.map or Pool.imap",
        prepare=sources(200, quick=4),
        arguments=["-m", "isort", "--quiet", "-j", "2", "tree"],
        outcome=REWRITTEN,
    ),
    Case(
        name="yapf",
        title="yapf --parallel",
        group=TOOLS,
        parallel_by="ProcessPoolExecutor.submit, as_completed",
        prepare=sources(14, quick=2),
        arguments=["-m", "yapf", "--parallel", "--in-place", "--recursive", "tree"],
        outcome=REWRITTEN,
    ),
    Case(
        name="autopep8",
        title="autopep8 -j 2",
        group=TOOLS,
        parallel_by="Pool.map",
        prepare=sources(16, quick=2),
        arguments=["-m", "autopep8", "-j", "2", "--in-place", "--recursive", "tree"],
        outcome=REWRITTEN,
    ),
]
