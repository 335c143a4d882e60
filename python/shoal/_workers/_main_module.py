# SPDX-License-Identifier: Apache-2.0
"""Decides whether another process can import the program's main module without starting the program
again, and which names the import would bind there.

Both follow from its source. The module can be imported if some top-level statement tests where it
runs, such as `if __name__ == "__main__"`. The import binds the top-level names outside that
statement.
"""

from __future__ import annotations

import functools
import os
import sys

# A test that uses one of these finds out whether it runs in the program or in a child.
# (`parent_process()` is no such test: it is None in a child, too, during the main module's import.)
NAME = "__name__"
TEXTS = frozenset({"__main__", "MainProcess"})


def names_after_import() -> frozenset[str] | None:
    """The names that importing the main module binds in a child; None: a child must not import it.

    As in the standard library, children do not import the `__main__.py` of a package, a folder or
    an archive.
    """
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        if spec.name == "__main__" or spec.name.endswith(".__main__"):
            return None
        try:
            return _read(spec.loader.get_source(spec.name) or "")
        except Exception:  # a third-party loader may raise anything
            return None
    file = getattr(main, "__file__", None)
    if os.path.splitext(os.path.basename(file or ""))[0] == "ipython":
        return None  # recognized by its name, as in the standard library
    try:
        facts = os.stat(file or "")
        return _read_file(file or "", facts.st_mtime_ns, facts.st_size)
    except (OSError, EOFError, TypeError, ValueError, SyntaxError):
        return None


@functools.lru_cache(maxsize=4)
def _read_file(file: str, modified: int, size: int) -> frozenset[str] | None:
    with open(file, "rb") as source:
        content = source.read()
    if file.endswith(".pyc"):
        from shoal._workers import _compiled_main

        return _compiled_main.read(content, NAME, TEXTS)
    return _read(content)


@functools.lru_cache(maxsize=4)
def _read(source: str | bytes) -> frozenset[str] | None:
    # Imported here because only pools of spawn and forkserver need the parser.
    from shoal._workers import _main_source

    return _main_source.read(source, NAME, TEXTS)
