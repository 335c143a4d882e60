# SPDX-License-Identifier: Apache-2.0
"""The examples on the pages of the documentation are true. What is done with which block of a page:
`tests/helpers/documentation.py`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import documentation
import pytest
from documentation import ROOT, Block

HELPERS = Path(documentation.__file__).parent
SHOAL = Path(sys.executable).parent / "shoal"
MOST_LEFT_ALONE = 12

ALL = [(page, block) for page in documentation.pages() for block in documentation.blocks(page)]
LEFT_ALONE = [(page, block) for page, block in ALL if block.kind == "left alone"]


def pages_with(wanted: Callable[[Block], bool]) -> list[object]:
    """Pages that have such a block, as parameters of a test."""
    found = {page for page, block in ALL if wanted(block) and documentation.is_run(page)}
    return [pytest.param(page, id=str(page.relative_to(ROOT))) for page in sorted(found)]


def skip_without_packages(page: Path) -> None:
    missing = documentation.missing_packages(page)
    if missing:
        pytest.skip(f"not installed here: {', '.join(missing)}")


def write_programs(page: Path, folder: Path) -> list[Block]:
    programs = [block for block in documentation.blocks(page) if block.kind == "program"]
    for block in programs:
        (folder / block.mark).write_text(block.text)
    return programs


def run_transcripts(interpreter, page: Path):
    return interpreter(
        f"""
        import sys
        sys.path.append({str(HELPERS)!r})
        import documentation
        documentation.run_transcripts({str(page)!r}, globals())
        """,
        timeout=100,
    )


@pytest.mark.parametrize("page", pages_with(lambda block: block.kind == "transcript"))
def test_the_transcripts_of_a_page_are_true(interpreter, page: Path) -> None:
    skip_without_packages(page)
    write_programs(page, interpreter.folder)
    run_transcripts(interpreter, page).check()


@pytest.mark.parametrize(
    "page", pages_with(lambda block: block.kind == "program" and block.expected is not None)
)
def test_the_programs_of_a_page_print_what_it_says(tmp_path: Path, page: Path) -> None:
    skip_without_packages(page)
    for block in write_programs(page, tmp_path):
        if block.expected is not None:
            done = subprocess.run(
                [SHOAL, "run", block.mark],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=100,
            )
            assert done.returncode == 0, f"{page.name}, {block.mark}: {done.stderr}"
            assert done.stdout == block.expected, f"{page.name}, {block.mark}"


def test_every_block_compiles() -> None:
    for page, block in ALL:
        if block.kind != "left alone":
            block.compile(page)


@pytest.mark.parametrize("count", [len(LEFT_ALONE)], ids=[f"{len(LEFT_ALONE)} of {len(ALL)}"])
def test_few_blocks_are_left_alone(count: int) -> None:
    reasons = [f"{page.name}:{block.line}: {block.mark}" for page, block in LEFT_ALONE]
    print(*reasons, sep="\n")
    assert count <= MOST_LEFT_ALONE


PAGE = """\
# A page

```python
>>> two = 1 + 1
```

```python
>>> two, __name__
(WHAT, '__main__')
```

```python
# file: program.py
print("printed")
```

```text
printed
```

Here something else is printed.

```python
# file: other.py
```

In between.

```text
not its output
```

```python
# not run: it needs the network
>>> is not Python
```
"""


def test_a_page_is_taken_apart(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    found = documentation.blocks(page)
    kinds = ["transcript", "transcript", "program", "program", "left alone"]
    assert [block.kind for block in found] == kinds
    assert [block.line for block in found] == [4, 8, 13, 24, 34]
    assert [block.mark for block in found[2:]] == [
        "program.py",
        "other.py",
        "it needs the network",
    ]
    assert [block.expected for block in found] == [None, None, "printed\n", None, None]


@pytest.mark.parametrize("what, status", [("2", 0), ("3", 1)])
def test_a_wrong_transcript_is_found(interpreter, tmp_path: Path, what: str, status: int) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.replace("WHAT", what))
    done = run_transcripts(interpreter, page)
    assert done.returncode == status
    assert ("Expected:\n    (3, '__main__')" in done.out) == (status == 1)
