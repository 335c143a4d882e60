# SPDX-License-Identifier: Apache-2.0
"""The default number of workers of a pool.

For shoal's own pools and executors it is the number of CPUs that this process may use. For the
drop-in's it is the number that the standard library of this Python version would use: an unmodified
program may depend on it, and may have patched `os.cpu_count` to change it.
"""

from __future__ import annotations

import os
import sys

from shoal._runtime._native import core
from shoal._runtime._public import public

MAX_WORKERS = 2000  # a pool has this many seats and some spare ones; a session 4,096 members


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
    """The default number of workers of the standard library's pools."""
    if sys.version_info >= (3, 13):
        count = os.process_cpu_count()
    else:
        count = os.cpu_count()
    return min(count or 1, MAX_WORKERS)


def _configured() -> int:
    """The number of CPUs that the user has configured; 0 if none, or if it is not a number."""
    if sys.version_info >= (3, 13):
        return max(0, sys._get_cpu_count_config())  # type: ignore[attr-defined,no-any-return]
    chosen = sys._xoptions.get("cpu_count")
    if chosen is None and not sys.flags.ignore_environment:
        chosen = os.environ.get("PYTHON_CPU_COUNT")
    return int(chosen) if isinstance(chosen, str) and chosen.isdecimal() else 0
