# SPDX-License-Identifier: Apache-2.0
"""Imported by the fork server after the user's modules, once: see `_fork_server`.

Its children find the same modules, functions and settings as those of a plain fork server, only
sooner. Makes no thread, opens no descriptor.
"""

from __future__ import annotations

import gc
import importlib
import importlib.machinery
import importlib.util
import multiprocessing.context
import multiprocessing.popen_forkserver
import multiprocessing.spawn  # noqa: F401
import os
import runpy

from shoal import _install, _swaps  # noqa: F401

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

Stamp = tuple[int, int, int]


def _stamp(file: str) -> Stamp | None:
    try:
        facts = os.stat(file)
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_size, facts.st_ino


def _keep_code(file: str | None) -> None:
    """Have `runpy` take the main module's code from here as long as its file is what it was."""
    stock: Any = getattr(runpy, "_get_code_from_file", None)
    if file is None or stock is None or not file.endswith(".py"):
        return
    stamp = _stamp(file)
    arguments = ("__mp_main__", file)[-stock.__code__.co_argcount :]
    try:
        found = stock(*arguments)
    except Exception:  # it is the children's to say
        return

    def get_code_from_file(*given: Any) -> Any:
        if given == arguments and stamp is not None and _stamp(file) == stamp:
            return found
        return stock(*given)

    runpy._get_code_from_file = get_code_from_file  # type: ignore[attr-defined]


def _import_all(names: str) -> None:
    for name in filter(None, names.split(",")):
        try:
            importlib.import_module(name)
        except Exception:  # made by the parent, or not for this process
            continue


_import_all(os.environ.pop("SHOAL_MODULES", ""))
_keep_code(os.environ.pop("SHOAL_MAIN", None))
gc.freeze()  # collections in the children leave alone what they share
