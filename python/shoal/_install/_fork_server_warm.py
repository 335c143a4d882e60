# SPDX-License-Identifier: Apache-2.0
"""The fork server imports this module once, after the user's modules: see `_fork_server`.

Its children find the same modules, functions and settings as children of a plain fork server, but
already imported. Starts no thread and opens no descriptor.
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
        except Exception:  # the parent made the module by hand, or it cannot be imported here
            continue


_import_all(os.environ.pop("SHOAL_MODULES", ""))
_run_path.patch()
if "SHOAL_MAIN" in os.environ:
    _run_path.keep(os.environ.pop("SHOAL_MAIN"))
gc.freeze()  # garbage collection in the children must not write to shared pages
