# SPDX-License-Identifier: Apache-2.0
"""Checks that every memory order weaker than seq_cst has an `order:` comment, on its line or just
above.

Several such accesses in a row may share one comment, unless there is a blank line, or a closing
brace at the start of a line, between them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from sources import CPP, ROOT, Finding, files, finish, lines

EXPLICIT = re.compile(r"(memory_order(_|::)|os::)(relaxed|acquire|release|acq_rel|consume)\b")
REACH = 12  # lines


def explained(text: list[str], index: int) -> bool:
    for line in reversed(text[max(0, index - REACH) : index + 1]):
        if "order:" in line:
            return True
        if line != text[index] and (not line.strip() or line.startswith("}")):
            return False
    return False


def findings(path: Path) -> Iterator[Finding]:
    text = lines(path)
    for index, line in enumerate(text):
        if EXPLICIT.search(re.sub(r"//.*", "", line)) and not explained(text, index):
            yield path, index + 1, "say why this order is enough: // order: ..."


def main() -> None:
    # Files about the orders themselves.
    about = {
        ROOT / "src" / p
        for p in ("os/atomic.hpp", "testing/simulated_words.cpp", "testing/weak_memory_test.cpp")
    }
    every = (p for p in files(*CPP, folders=("src", "include", "bindings")) if p not in about)
    finish("memory order", (f for path in every for f in findings(path)))


if __name__ == "__main__":
    main()
