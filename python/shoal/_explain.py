# SPDX-License-Identifier: Apache-2.0
"""What `shoal run --explain` prints at exit: what was swapped, what was left, and why.

Loaded only when SHOAL_EXPLAIN is set, which holds the pid of the program's root process. The root
always reports; its children report only when they made pools of their own. Reports go to stderr,
one write each, so that those of several processes do not mix.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections import Counter

# Packages with process pools of their own, which no change to the standard library reaches.
_OTHER_PACKAGES = {
    "billiard": "billiard (Celery's fork of multiprocessing)",
    "multiprocess": "multiprocess (pathos)",
    "loky": "loky",
    "joblib.externals.loky": "joblib's loky backend",
    "torch.multiprocessing": "torch.multiprocessing",
    "pebble": "pebble",
    "mpire": "mpire",
    "ray": "Ray",
    "distributed": "Dask distributed",
}

_events: Counter[tuple[str, str, str]] = Counter()
_registered_pid = 0


def report_at_exit() -> None:
    """Print the report when this process, or a child that forks from it, ends."""
    global _registered_pid
    if _registered_pid == 0:
        atexit.register(_report)
        os.register_at_fork(after_in_child=_events.clear)
    _registered_pid = os.getpid()


def record(verdict: str, what: str, why: str) -> None:
    """Count one pool or executor: `verdict` is "swapped" or "left"."""
    global _registered_pid
    _events[verdict, what, why] += 1
    if _registered_pid != os.getpid():
        # A child of fork ends by os._exit and runs no atexit handler, but multiprocessing's own.
        _registered_pid = os.getpid()
        from multiprocessing.util import Finalize

        Finalize(None, _report, exitpriority=-100)


def _report() -> None:
    is_root = os.environ.get("SHOAL_EXPLAIN") == str(os.getpid())
    if not is_root and not _events:
        return
    lines = [f"shoal: process {os.getpid()}{' (the program)' if is_root else ''}"]
    for (verdict, what, why), count in sorted(_events.items(), reverse=True):
        lines.append(f"  {verdict:<8} {count:>5} x {what}{': ' + why if why else ''}")
    if not _events:
        lines.append("  nothing to swap: the program made nothing that shoal has")
    for package, label in _OTHER_PACKAGES.items():
        if package in sys.modules:
            lines.append(f"  left     {label}: a package with its own processes")
    if is_root and "multiprocessing" in sys.modules:
        lines.append("  left     Process, Manager, Listener and Client: the standard library's own")
    sys.stderr.write("\n".join(lines) + "\n")
