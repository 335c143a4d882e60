# SPDX-License-Identifier: Apache-2.0
"""What does it cost to start a process that does nothing, and to wait for its end?

`Process(target=nothing)`, `start()` and `join()` of each start method: the standard library's, and
the same under `shoal.multiprocessing`. They run in a separate program (`empty_process.py`), because
children of spawn and forkserver run the main module again, and this benchmark's main module would
take most of the time. The first starts are not counted: they start the fork server.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from measure import Row, Sample, Scale

_PROGRAM = Path(__file__).with_name("empty_process.py")
_UNCOUNTED = 3


def _start_and_join(method: str) -> Callable[[str, Scale], Sample]:
    def measure(side: str, scale: Scale) -> Sample:
        times = str(scale.pick(40, 2) + _UNCOUNTED)
        command = [sys.executable, str(_PROGRAM), side, method, times]
        environment = {name: v for name, v in os.environ.items() if name != "SHOAL_RUN"}
        done = subprocess.run(command, capture_output=True, check=True, env=environment)
        return Sample(statistics.median(json.loads(done.stdout)[_UNCOUNTED:]) * 1e3, method)

    return measure


ROWS = [
    Row("process-fork", "empty process by fork", "ms", _start_and_join("fork"), target=0.9),
    Row(
        "process-forkserver",
        "empty process by forkserver",
        "ms",
        _start_and_join("forkserver"),
        target=3,
    ),
    Row("process-spawn", "empty process by spawn", "ms", _start_and_join("spawn"), target=0.9),
]
