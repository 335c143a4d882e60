# SPDX-License-Identifier: Apache-2.0
"""Sphinx: pages from the docstrings of the standard library, read and written by two processes."""

from __future__ import annotations

from pathlib import Path

from case import TOOLS, Case, files_of

CONFIGURATION = """\
project = "modules"
extensions = ["sphinx.ext.autodoc"]
html_theme = "basic"
html_use_index = False
html_last_updated_fmt = None
"""
# Modules whose docstrings name no addresses of objects, so that every run writes the same.
MODULES = (
    "argparse", "calendar", "cmd", "configparser", "csv", "difflib", "fileinput", "gettext",
    "heapq", "pathlib", "pprint", "random", "shelve", "shlex", "statistics", "string", "textwrap",
    "timeit",
)  # fmt: skip


def write_sources(folder: Path, quick: bool) -> None:
    pages = folder / "pages"
    pages.mkdir()
    (pages / "conf.py").write_text(CONFIGURATION)
    modules = MODULES[:6] if quick else MODULES
    contents = "".join(f"   {name}\n" for name in modules)
    (pages / "index.rst").write_text(f"Modules\n=======\n\n.. toctree::\n\n{contents}")
    for name in modules:
        head = f"{name}\n{'=' * len(name)}\n\n"
        directive = f".. automodule:: {name}\n   :members:\n   :undoc-members:\n"
        (pages / f"{name}.rst").write_text(head + directive)


CASES = [
    Case(
        name="sphinx",
        title="sphinx -j 2",
        group=TOOLS,
        parallel_by="os.fork by Process, Pipe",
        prepare=write_sources,
        arguments=["-m", "sphinx", "-Q", "-j", "2", "-b", "html", "pages", "html"],
        outcome=files_of("html", "*.html"),
    )
]
