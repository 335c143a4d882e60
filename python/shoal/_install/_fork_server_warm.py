# SPDX-License-Identifier: Apache-2.0
"""Imported by the fork server after the user's modules, once: see `_fork_server`.

Its children find the same modules, functions and settings as those of a plain fork server, only
sooner. Makes no thread, opens no descriptor.
"""

from __future__ import annotations

import gc
import importlib
import multiprocessing.context
import multiprocessing.popen_forkserver
import multiprocessing.spawn  # noqa: F401
import os

from shoal._install import _install, _swaps  # noqa: F401
from shoal._runtime import _run_path


def _import_all(names: str) -> None:
    for name in filter(None, names.split(",")):
        try:
            importlib.import_module(name)
        except Exception:  # made by the parent, or not for this process
            continue


_import_all(os.environ.pop("SHOAL_MODULES", ""))
_run_path.patch()
if "SHOAL_MAIN" in os.environ:
    _run_path.keep(os.environ.pop("SHOAL_MAIN"))
gc.freeze()  # collections in the children leave alone what they share
