# SPDX-License-Identifier: Apache-2.0
"""The README's table is what a run on one commit gave: nobody has edited it by hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_table_is_the_one_of_the_saved_run(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    import publish

    document = json.loads((ROOT / "bench" / "results" / "x86-2core-3.13.json").read_text())
    readme = (ROOT / "README.md").read_text()
    block = readme.partition(publish.BEGIN)[2].partition(publish.END)[0]
    assert block == publish.published(document)
    assert all(row["checked"] for row in document["rows"])
    assert "+" not in document["machine"]["commit"], "measured with changes that are in no commit"
    assert publish.PLOT.exists()
    for name in ("publish", "report", "measure", "machine"):
        sys.modules.pop(name, None)
