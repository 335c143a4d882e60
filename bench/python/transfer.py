# SPDX-License-Identifier: Apache-2.0
"""How long does a large value take to a worker, or back from it?

100 MB each way, as `bytes` and as an array of float64. The clock covers the whole call: encoding,
transport, decoding, and the answer.

Unfair would be:
- to time only the first call: fresh memory is ten times as slow as warm memory, on every side;
- to rely on the receiver not reading the data: in most rows both sides read arrays at one place
  only, which favours a side that maps pages lazily, so reading all pages is a separate row;
- to let one side send the same object by reference: so the value is a new object in each call where
  that is possible (for arguments; results are kept by the worker).
"""

from __future__ import annotations

from typing import Any

from measure import Row, Sample, Scale, median_seconds, open_executor
from tasks import array_length, length, make_array, make_bytes

MEGABYTE = 1_000_000


def bytes_in(side: str, scale: Scale) -> Sample:
    value = bytes(scale.pick(100, 1) * MEGABYTE)
    return _timed(side, scale, lambda executor: executor.submit(length, value).result())


def bytes_out(side: str, scale: Scale) -> Sample:
    size = scale.pick(100, 1) * MEGABYTE
    return _timed(side, scale, lambda executor: len(executor.submit(make_bytes, size).result()))


def array_in(side: str, scale: Scale) -> Sample:
    import numpy

    value = numpy.ones(scale.pick(100, 1) * MEGABYTE // 8)
    return _timed(side, scale, lambda executor: executor.submit(array_length, value).result())


def array_out(side: str, scale: Scale) -> Sample:
    size = scale.pick(100, 1) * MEGABYTE // 8

    def call(executor: Any) -> int:
        result = executor.submit(make_array, size).result()
        return int(result.size + result[0])

    return _timed(side, scale, call)


def array_out_read(side: str, scale: Scale) -> Sample:
    size = scale.pick(100, 1) * MEGABYTE // 8
    return _timed(
        side, scale, lambda executor: int(executor.submit(make_array, size).result().sum())
    )


def _timed(side: str, scale: Scale, call: Any) -> Sample:
    """Median of several calls on one worker: each call meets warm memory, on every side."""
    answers: list[int] = []
    with open_executor(side, 1) as executor:
        seconds = median_seconds(
            lambda: answers.append(call(executor)), scale.pick(7, 2), warm_up=2
        )
    return Sample(seconds * 1e3, sorted(set(answers)))


ROWS = [
    Row("bytes-in", "100 MB `bytes` as argument", "ms", bytes_in, target=8, peers=True),
    Row("bytes-out", "100 MB `bytes` as result", "ms", bytes_out, target=8, peers=True),
    Row("array-in", "100 MB float64 array as argument", "ms", array_in, target=15, peers=True),
    Row("array-out", "100 MB float64 array as result", "ms", array_out, target=20, peers=True),
    Row("array-out-read", "the same, and the caller reads all of it", "ms", array_out_read),
]
