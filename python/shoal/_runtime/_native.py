# SPDX-License-Identifier: Apache-2.0
"""The C++ core: `from shoal._runtime._native import core`.

Tests set SHOAL_TEST_CORE=1 to get the same core with active kill points.
"""

from __future__ import annotations

import os
import signal
import sys

TYPE_CHECKING = False
if not sys.platform.startswith("linux"):
    raise ImportError(
        f"shoal needs Linux (futexes, memfd, pidfds); this is {sys.platform}. "
        "Use multiprocessing here: the API is the same."
    )

# Block SIGINT: an exception that a signal handler raises while an extension loads can be lost.
_mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
try:
    if TYPE_CHECKING or os.environ.get("SHOAL_TEST_CORE") != "1":
        from shoal import _core as core
    else:
        from shoal import _core_testing as core
finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, _mask)

__all__ = ["core"]
