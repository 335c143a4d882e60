# SPDX-License-Identifier: Apache-2.0
"""What does a parallel call of joblib with many tiny tasks cost?

In place of the standard library, the left side is joblib's own backend, loky; the right side is the
backend "shoal". On both sides joblib sizes the batches by the same rule.

Unfair would be: to time the start of the workers (a call is made before the clock starts); to set a
batch size that suits one side (it is joblib's "auto").
"""

from __future__ import annotations

import time

from measure import SHOAL, WORKERS, Row, Sample, Scale
from tasks import noop


def small_calls(side: str, scale: Scale) -> Sample:
    import joblib

    if side == SHOAL:
        from shoal.adapters.joblib import register

        register()
    count = scale.pick(20_000, 200)
    with joblib.parallel_config(backend="shoal" if side == SHOAL else "loky", n_jobs=WORKERS):
        joblib.Parallel()(joblib.delayed(noop)(number) for number in range(100))
        started = time.perf_counter()
        results = joblib.Parallel()(joblib.delayed(noop)(number) for number in range(count))
        seconds = time.perf_counter() - started
    return Sample(seconds / count * 1e6, sum(results))


def short_call(side: str, scale: Scale) -> Sample:
    import joblib

    if side == SHOAL:
        from shoal.adapters.joblib import register

        register()
    with joblib.parallel_config(backend="shoal" if side == SHOAL else "loky", n_jobs=WORKERS):
        seconds, total = [], 0
        for _ in range(scale.pick(30, 3)):
            started = time.perf_counter()
            total += sum(joblib.Parallel()(joblib.delayed(noop)(number) for number in range(10)))
            seconds.append(time.perf_counter() - started)
    return Sample(sorted(seconds)[len(seconds) // 2] * 1e3, total)


ROWS = [
    Row("joblib-small", "`joblib.Parallel` of 20,000 no-ops against loky, per task", "us",
        small_calls),
    Row("joblib-call", "`joblib.Parallel` of 10 no-ops against loky, a call", "ms", short_call),
]  # fmt: skip
