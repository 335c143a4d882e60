# SPDX-License-Identifier: Apache-2.0
"""What does it cost to start a process that does nothing, and to wait for its end?

`Process(target=nothing)`, `start()` and `join()` of each start method: the standard library's, and
the same under `shoal.multiprocessing`. The fork server is started before the clock is.

Unfair would be: a main module of one side that imports more than the other's (children of spawn and
forkserver run it again): both sides run this file's, which has both; shoal's own modules are imported
on shoal's side only, as a program would.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

from measure import SHOAL, Row, Sample, Scale, median_seconds


def _nothing() -> None:
    pass


def _context(side: str, method: str) -> Any:
    if side == SHOAL:
        import shoal.multiprocessing

        return shoal.multiprocessing.get_context(method)
    return multiprocessing.get_context(method)


def _start_and_join(method: str) -> Callable[[str, Scale], Sample]:
    def measure(side: str, scale: Scale) -> Sample:
        context = _context(side, method)
        codes = set()

        def once() -> None:
            process = context.Process(target=_nothing)
            process.start()
            process.join()
            codes.add(process.exitcode)

        seconds = median_seconds(once, scale.pick(30, 2), warm_up=scale.pick(3, 1))
        return Sample(seconds * 1e3, sorted(codes))

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
