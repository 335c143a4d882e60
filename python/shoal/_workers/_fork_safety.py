# SPDX-License-Identifier: Apache-2.0
"""May this process be forked as a template? Only when no thread of it can hold a lock that the
child would wait for.

Python threads refuse it, as do native ones, but for those whose libraries are known to see to it:
in fork handlers OpenBLAS joins its threads (numpy and scipy bring it along), and jemalloc takes its
locks (pyarrow brings it along, and so do pandas and scikit-learn).
"""

from __future__ import annotations

import os
import sys
import threading
import weakref

_THREADS_OF = (  # how OpenBLAS, under the names its builds have, says how many threads it uses
    "openblas_get_num_threads",
    "openblas_get_num_threads64_",
    "scipy_openblas_get_num_threads",
    "scipy_openblas_get_num_threads64_",
)
# Threads of libraries that have fork handlers for them, by the names that they give their threads.
# jemalloc: 300 forks with pyarrow and pandas at work, in the child too; none failed.
_HARMLESS_NAMES = ("jemalloc_bg_thd",)
# Python threads of shoal's own that hold no lock while they sleep, which is nearly always.
harmless: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
# Drivers that do not survive a fork.
_NEVER = ("libcuda.so", "libnvidia-ml.so", "libamdhip64.so")


def refusal(own_threads: int = 0) -> str | None:
    """Why this process must not be forked, or None. `own_threads`: Python threads that shoal stops
    at a fork.
    """
    alive = threading.enumerate()  # with threads that were started, but do not run yet
    keepers = [thread for thread in alive if thread in harmless]
    own_threads += len(keepers)
    if len(alive) - own_threads > 1:
        others = {threading.main_thread(), *keepers}
        names = ", ".join(t.name for t in alive if t not in others)
        return f"Python threads are running ({names})"
    native = _native_threads()
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


def _native_threads() -> int:
    """All threads of this process but those known by name to be harmless."""
    try:
        threads = os.listdir("/proc/self/task")
    except OSError:
        return 1
    return len(threads) if len(threads) == 1 else len(threads) - sum(map(_is_harmless, threads))


def _is_harmless(thread: str) -> bool:
    try:
        with open(f"/proc/self/task/{thread}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip() in _HARMLESS_NAMES
    except OSError:  # it has just ended
        return True


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
    import ctypes

    try:
        library = ctypes.CDLL(path, mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
    except OSError:
        return 0
    for name in _THREADS_OF:
        function = getattr(library, name, None)
        if function is not None:
            return max(0, int(function()) - 1)
    return 0
