# SPDX-License-Identifier: Apache-2.0
"""Decides whether this process may be forked as a template. It may only if none of its threads can
hold a lock that the child would wait for.

So any other Python thread prevents the fork, and so does any native thread except those of
libraries with suitable fork handlers: OpenBLAS (which numpy and scipy load) joins its threads
there, and jemalloc (which pyarrow loads, and so pandas and scikit-learn) takes its locks.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref

_THREADS_OF = (  # names, in different builds, of OpenBLAS's function that returns its thread count
    "openblas_get_num_threads",
    "openblas_get_num_threads64_",
    "scipy_openblas_get_num_threads",
    "scipy_openblas_get_num_threads64_",
)
# Names of threads that are safe because their libraries have fork handlers for them.
# jemalloc: of 300 forks with pyarrow and pandas at work, in the child too, none failed.
_HARMLESS_NAMES = ("jemalloc_bg_thd",)
# shoal's own Python threads that hold no lock while they sleep, and they sleep nearly always.
harmless: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
# Drivers that do not survive a fork.
_NEVER = ("libcuda.so", "libnvidia-ml.so", "libamdhip64.so")


def refusal(own_threads: int = 0) -> str | None:
    """Why this process must not be forked, or None. `own_threads`: the number of Python threads
    that shoal stops at a fork.
    """
    alive = threading.enumerate()  # includes threads that were started but do not run yet
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
        return f"{extra} native threads of unknown origin are running{_hint()}"
    return None


def _hint() -> str:
    """The one thread that Python itself starts without saying so: test tools use it."""
    used = "faulthandler" in sys.modules
    return " (faulthandler.dump_traceback_later() starts one)" if used else ""


def _native_threads() -> int:
    """The number of threads of this process, without those known by name to be harmless."""
    try:
        threads = os.listdir("/proc/self/task")
    except OSError:
        return 1
    return len(threads) if len(threads) == 1 else len(threads) - sum(map(_is_harmless, threads))


def _is_harmless(thread: str) -> bool:
    try:
        with open(f"/proc/self/task/{thread}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip() in _HARMLESS_NAMES
    except OSError:  # the thread has just ended
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
    """The number of threads, besides the calling one, of an OpenBLAS library."""
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
