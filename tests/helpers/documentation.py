# SPDX-License-Identifier: Apache-2.0
"""The examples in pages of the documentation: finds them, sorts them by kind, runs them.

A fenced `python` block of a page is one of four kinds:

    transcript   has `>>> ` in it: run as a doctest; all of a page share one namespace
    program      its first line is `# file: NAME.py`: written under that name; if a `text` block
                 comes directly behind it, run by `shoal run NAME.py`, which must print exactly that
    left alone   its first line is `# not run: REASON`
    fragment     anything else: must compile
"""

from __future__ import annotations

import ast
import doctest
import importlib.util
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^ *```$", re.M | re.S)
FIRST_LINE = re.compile(r"# (file|not run): *(.+)")


@dataclass
class Block:
    """A fenced block of Python; `line` is that of its first line in the page."""

    text: str
    line: int
    expected: str | None = None  # the `text` block directly behind it

    @property
    def kind(self) -> str:
        marked = FIRST_LINE.match(self.text)
        if marked:
            return "program" if marked[1] == "file" else "left alone"
        return "transcript" if ">>> " in self.text else "fragment"

    @property
    def mark(self) -> str:
        """The program's name, or the reason why the example is not run."""
        marked = FIRST_LINE.match(self.text)
        return marked[2].strip() if marked else ""

    @property
    def sources(self) -> list[str]:
        if self.kind != "transcript":
            return [self.text]
        return [example.source for example in doctest.DocTestParser().get_examples(self.text)]

    def compile(self, page: Path) -> None:
        for source in self.sources:
            compile(source, f"{page}:{self.line}", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def is_run(page: Path) -> bool:
    """Are the page's examples run? Not those of design pages, which show internal code."""
    return "design" not in page.parts


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    found: list[Block] = []
    end = 0  # of the last block of Python
    for fence in FENCE.finditer(text):
        content = textwrap.dedent(fence["text"])
        if fence["language"] == "python":
            found.append(Block(content, text.count("\n", 0, fence.start("text")) + 1))
            end = fence.end()
        elif fence["language"] == "text" and found and not text[end : fence.start()].strip():
            found[-1].expected = content
    return found


def missing_packages(page: Path) -> list[str]:
    """Modules that the page's examples import and that are not installed."""
    names = set()
    for block in blocks(page):
        if block.kind in ("transcript", "program"):
            for node in (n for source in block.sources for n in ast.walk(ast.parse(source))):
                if isinstance(node, ast.Import):
                    names |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    names.add(node.module.partition(".")[0])
    own = {block.mark.removesuffix(".py") for block in blocks(page) if block.kind == "program"}
    return sorted(name for name in names - own if importlib.util.find_spec(name) is None)


def run_transcripts(page: str, namespace: dict[str, Any]) -> None:
    """Called by a main module, with its own namespace. Exits with the number of failures."""
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for block in blocks(Path(page)):
        if block.kind == "transcript":
            name = f"{Path(page).stem}, line {block.line}"
            test = doctest.DocTestParser().get_doctest(block.text, {}, name, page, block.line - 1)
            test.globs = namespace  # not a copy: what is defined here is the main module's
            runner.run(test, clear_globs=False)
    raise SystemExit(runner.summarize(verbose=False).failed)
