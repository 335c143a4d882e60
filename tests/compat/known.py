# SPDX-License-Identifier: Apache-2.0
"""Prints the patterns of known.toml for the runner's --known-fail, each with its reason."""

from __future__ import annotations

import re
import sys
from pathlib import Path

_FIELD = re.compile(r'^(\w+) = "(.*)"$')


def entries(text: str) -> list[dict[str, str]]:
    """The [[known]] tables: flat, strings only. (CPython 3.10 has no tomllib.)"""
    found: list[dict[str, str]] = []
    for line in text.splitlines():
        field = _FIELD.match(line)
        if line == "[[known]]":
            found.append({})
        elif field and found:
            found[-1][field[1]] = field[2]
        elif line and not line.startswith("#"):
            sys.exit(f"known.toml: cannot read {line!r}")
    return found


def main() -> None:
    for entry in entries(Path(__file__).with_name("known.toml").read_text()):
        reason = entry.get("pain") or entry.get("whitebox")
        if not reason or "pattern" not in entry:
            sys.exit(f"known.toml: a test without pattern or reason: {entry}")
        print(f"{entry['pattern']}  # {reason}")


main()
