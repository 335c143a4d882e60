# SPDX-License-Identifier: Apache-2.0
"""How many workers a pool has that was not told a number.

Shoal's own pools and executors have as many as this process may use CPUs. What stands in for the
standard library's has as many as the standard library's of this Python version would have: an
unmodified program may depend on it, and may have patched `os.cpu_count` to change it.
"""

from __future__ import annotations

import os
import sys

from shoal._runtime._native import core
from shoal._runtime._public import public

MAX_WORKERS = 500  # member slots of a session, less some for others


@public
def cpu_count() -> int:
    """CPUs this process may use: its affinity mask and its cgroup's quota, at least 1. The option
    `-X cpu_count=N` and the variable PYTHON_CPU_COUNT override both.

    >>> import shoal
    >>> shoal.cpu_count() >= 1
    True
    """
    return _configured() or int(core.usable_cpus())


def standard_count() -> int:
    """What the standard library's pools take here."""
    if sys.version_info >= (3, 13):
        count = os.process_cpu_count()
    else:
        count = os.cpu_count()
    return min(count or 1, MAX_WORKERS)


def _configured() -> int:
    """What the user of this interpreter has set; 0: nothing, or nothing that is a number."""
    if sys.version_info >= (3, 13):
        return max(0, sys._get_cpu_count_config())  # type: ignore[attr-defined,no-any-return]
    chosen = sys._xoptions.get("cpu_count")
    if chosen is None and not sys.flags.ignore_environment:
        chosen = os.environ.get("PYTHON_CPU_COUNT")
    return int(chosen) if isinstance(chosen, str) and chosen.isdecimal() else 0
