# SPDX-License-Identifier: Apache-2.0
"""May this process be forked as a template? Only when no thread of it can hold a lock that the
child would wait for.

Python threads refuse it, as do native ones, but for those that are known to end by themselves at a
fork: OpenBLAS joins its threads in a fork handler (numpy and scipy bring it along).
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading

_THREADS_OF = (  # how OpenBLAS, under the names its builds have, says how many threads it uses
    "openblas_get_num_threads",
    "openblas_get_num_threads64_",
    "scipy_openblas_get_num_threads",
    "scipy_openblas_get_num_threads64_",
)
# Drivers that do not survive a fork.
_NEVER = ("libcuda.so", "libnvidia-ml.so", "libamdhip64.so")


def refusal(own_threads: int = 0) -> str | None:
    """Why this process must not be forked, or None. `own_threads`: Python threads that shoal stops
    at a fork.
    """
    alive = threading.active_count() - own_threads
    if alive > 1:
        names = ", ".join(
            thread.name for thread in threading.enumerate() if thread is not threading.main_thread()
        )
        return f"Python threads are running ({names})"
    try:
        native = len(os.listdir("/proc/self/task"))
    except OSError:
        native = 1
    if native == 1 + own_threads and not _has_driver():
        return None
    libraries = _libraries()
    for library in libraries:
        if os.path.basename(library).startswith(_NEVER):
            return f"{os.path.basename(library)} is loaded, whose state does not survive a fork"
    extra = native - 1 - own_threads - sum(map(_blas_threads, libraries))
    if extra > 0:
        return f"{extra} native threads of unknown origin are running"
    return None


def _has_driver() -> bool:
    return (
        "torch" in sys.modules
        or "cupy" in sys.modules
        or "numba" in sys.modules
        or "jax" in sys.modules
    )


def _libraries() -> set[str]:
    found = set()
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
            for line in maps:
                path = line.split(maxsplit=5)[-1].strip()
                if path.startswith("/") and ".so" in path:
                    found.add(path)
    except OSError:
        pass
    return found


def _blas_threads(path: str) -> int:
    """Threads beside the calling one that an OpenBLAS keeps."""
    if "openblas" not in os.path.basename(path):
        return 0
    try:
        library = ctypes.CDLL(path, mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
    except OSError:
        return 0
    for name in _THREADS_OF:
        function = getattr(library, name, None)
        if function is not None:
            return max(0, int(function()) - 1)
    return 0
