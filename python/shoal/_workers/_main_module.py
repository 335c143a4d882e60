# SPDX-License-Identifier: Apache-2.0
"""The program's main module: can another process import it without starting the program again, and
what does that process have then?

Both are read off its source. It can be imported if some statement at its top asks where it runs,
such as `if __name__ == "__main__"`. What is bound elsewhere at its top is there after the import.
"""

from __future__ import annotations

import functools
import os
import sys

# Who asks for one of these wants to know whether this is the program or a child of it.
# (`parent_process()` is None in a child, too, while that imports the main module.)
NAME = "__name__"
TEXTS = frozenset({"__main__", "MainProcess"})


def names_after_import() -> frozenset[str] | None:
    """The names that a child has of the main module by importing it; None: it must not.

    `__main__.py` of a package, a folder or an archive is not imported by others, as in the standard
    library.
    """
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        if spec.name == "__main__" or spec.name.endswith(".__main__"):
            return None
        try:
            return _read(spec.loader.get_source(spec.name) or "")
        except Exception:  # of a loader that others have written
            return None
    file = getattr(main, "__file__", None)
    if os.path.splitext(os.path.basename(file or ""))[0] == "ipython":
        return None  # by name, there too
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
    # Imported here, because only pools of spawn and forkserver need the parser.
    from shoal._workers import _main_source

    return _main_source.read(source, NAME, TEXTS)
