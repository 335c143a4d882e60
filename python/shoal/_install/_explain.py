# SPDX-License-Identifier: Apache-2.0
"""The report that `shoal run --explain` prints at exit: what was swapped, what was left, and why.

Loaded only when SHOAL_EXPLAIN is set, which holds the pid of the program's root process. The root
always reports; its children report only when they made pools of their own. Reports go to stderr,
one write each, so that those of several processes do not mix.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections import Counter

from shoal._install import _swaps

# Packages with their own process pools, which no change to the standard library affects.
_OTHER_PACKAGES = {
    "billiard": "billiard (Celery's fork of multiprocessing)",
    "multiprocess": "multiprocess (pathos)",
    "torch.multiprocessing": "torch.multiprocessing",
    "pebble": "pebble",
    "mpire": "mpire",
    "ray": "Ray",
    "distributed": "Dask distributed",
}

# Parts of the standard library that the table does not swap: (module, name, label, why). A row is
# shown only if the table does not name it and the program has imported its module.
_FAMILIES = (
    ("multiprocessing.process", "BaseProcess", "Process", "the standard library's own processes"),
    ("multiprocessing.connection", "Listener", "Listener, Client", "they may lead out of here"),
    ("multiprocessing.managers", "BaseManager", "managers of your own", "they need a server"),
    ("multiprocessing.dummy", "Pool", "multiprocessing.dummy", "threads, no processes"),
)
_HEALS = "a worker's death fails its task only (--heal)"
_BREAKS = "a worker's death breaks its executor, as in the standard library; not with --heal"

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
        # A forked child ends with os._exit and runs no atexit handlers, only multiprocessing's.
        _registered_pid = os.getpid()
        from multiprocessing.util import Finalize

        Finalize(None, _report, exitpriority=-100)


def _is_served(package: str) -> bool:
    """Whether the table has an adapter for a module of this package."""
    modules = [module for module, _ in _swaps.ADAPTERS]
    return any(f"{module}.".startswith(f"{package}.") for module in modules)


def _left_alone() -> list[tuple[str, str]]:
    """(label, why) of the parts that this program may use and the table does not swap."""
    swapped = {(swap.module, swap.name) for swap in _swaps.SWAPS}
    swapped |= {(module, name) for module, name, _ in _swaps.FUNCTIONS}
    return [
        (label, why)
        for module, name, label, why in _FAMILIES
        if module in sys.modules and (module, name) not in swapped
    ]


def _report() -> None:
    is_root = os.environ.get("SHOAL_EXPLAIN") == str(os.getpid())
    if not is_root and not _events:
        return
    lines = [f"shoal: process {os.getpid()}{' (the program)' if is_root else ''}"]
    for (verdict, what, why), count in sorted(_events.items(), reverse=True):
        lines.append(f"  {verdict:<8} {count:>5} x {what}{': ' + why if why else ''}")
    if not _events:
        lines.append("  nothing to swap: the program made nothing that shoal has")
    if "joblib" in sys.modules and os.environ.get("SHOAL_JOBLIB") == "loky":
        lines.append("  left     joblib and loky: SHOAL_JOBLIB=loky")
    for package, label in _OTHER_PACKAGES.items():
        if package in sys.modules and not _is_served(package):
            lines.append(f"  left     {label}: a package with its own processes")
    lines += [f"  left     {label}: {why}" for label, why in _left_alone()] if is_root else []
    if any("ProcessPoolExecutor" in what for _, what, _ in _events):
        lines.append("  " + (_HEALS if os.environ.get("SHOAL_HEAL") == "1" else _BREAKS))
    sys.stderr.write("\n".join(lines) + "\n")
