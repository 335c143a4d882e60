# SPDX-License-Identifier: Apache-2.0
"""Write the table of docs/guide/real_programs.md from results: page.py RESULTS.json [MORE.json]

Later files replace cases of earlier ones, so that the cases of torch, measured separately, can be
added.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

import machine
import results

PAGE = Path(__file__).resolve().parents[2] / "docs" / "guide" / "real_programs.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def table(documents: list[dict[str, Any]]) -> str:
    """One table of all cases; a line for each machine and commit."""
    cases = {case["case"]: case for document in documents for case in document["cases"]}
    heads = dict.fromkeys(machine.describe(document["machine"]) for document in documents)
    return results.markdown(list(cases.values()), "; ".join(heads))


def main() -> int:
    if len(sys.argv) < 2:
        sys.stderr.write("usage: page.py RESULTS.json [MORE.json]\n")
        return 2
    documents = [json.loads(Path(name).read_text()) for name in sys.argv[1:]]
    if any(document["quick"] for document in documents):
        sys.stderr.write("page.py: results of --quick are no measurements\n")
        return 2
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{table(documents)}\n{END}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
