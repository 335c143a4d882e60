# SPDX-License-Identifier: Apache-2.0
"""A typical short script: a checksum of each file of a tree."""

from case import STDLIB, Case, program
from inputs import sources

CASES = [
    Case(
        name="digests",
        title="checksums of a tree",
        group=STDLIB,
        parallel_by="Pool.imap_unordered",
        prepare=sources(200, quick=10),
        arguments=program("digests.py", "tree", 400),
        quick_arguments=program("digests.py", "tree", 2),
    )
]
