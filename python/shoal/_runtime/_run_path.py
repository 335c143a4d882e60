# SPDX-License-Identifier: Apache-2.0
"""Runs a main module's file in a fresh process as `runpy.run_path` does, but without its imports
for files of other kinds.

A process of spawn or forkserver runs the program's main module with `runpy.run_path(file, None,
"__mp_main__")`, which imports pkgutil and so typing: 5 ms in each process, and most programs need
neither. For a plain source file the result here is the same. Any other kind of main module (a zip
file, a folder, compiled code) is left to the standard library.

Module state: `_kept`, the compiled code of files, with each file's stamp when it was compiled.
"""

from __future__ import annotations

import os
import runpy
import sys
from importlib.util import MAGIC_NUMBER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any

MAIN = "__mp_main__"
Stamp = tuple[int, int, int]
_kept: dict[str, tuple[Stamp, CodeType]] = {}
_stock_run_path: Any = runpy.run_path


def patch() -> None:
    """Make this process and its forked children use `run_path`. May be called again."""
    if hasattr(runpy, "_run_module_code"):
        runpy.run_path = run_path


def run_path(path_name: Any, init_globals: Any = None, run_name: str | None = None) -> Any:
    """Replaces `runpy.run_path`; see there."""
    if init_globals is None and run_name == MAIN and isinstance(path_name, str):
        code = _code_of(path_name)
        if code is not None:
            run: Any = runpy._run_module_code  # type: ignore[attr-defined]
            return run(code, None, run_name, pkg_name="", script_name=path_name)
    return _stock_run_path(path_name, init_globals, run_name)


def keep(file: str) -> None:
    """Compile the file now, for children that will be forked. Errors are ignored here; the children
    report them.
    """
    stamp = _stamp(file)
    try:
        code = _compiled(file)
    except Exception:
        return
    if stamp is not None and code is not None:
        _kept[file] = stamp, code


def _code_of(file: str) -> CodeType | None:
    """The code of the file; None if it is not a plain source file."""
    stamp, code = _kept.get(file, (None, None))
    if code is not None and stamp == _stamp(file):
        return code
    return _compiled(file)


def _compiled(file: str) -> CodeType | None:
    if not file.endswith(".py") or _has_importer(file):
        return None
    import io

    with io.open_code(os.path.abspath(file)) as source:
        text = source.read()
    if text.startswith(MAGIC_NUMBER):
        return None
    return compile(text, file, "exec", dont_inherit=True)


def _has_importer(path: str) -> bool:
    """Whether modules can be imported from `path`: a folder, or a zip file of any name."""
    if path in sys.path_importer_cache:
        return sys.path_importer_cache[path] is not None
    for hook in sys.path_hooks:
        try:
            hook(path)
        except ImportError:
            continue
        return True
    return False


def _stamp(file: str) -> Stamp | None:
    try:
        facts = os.stat(file)
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_size, facts.st_ino
