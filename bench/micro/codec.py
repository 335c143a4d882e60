# SPDX-License-Identifier: Apache-2.0
"""What does it cost to encode and to decode a value, also as an inline word, compared with pickle?

Times are the best of several rounds, in nanoseconds. For the codec they are measured in C (decoding
copies and includes freeing the result), for pickle around the C functions. The comparison is unfair
if the machine is busy, and to pickle for tiny values, where the call from Python takes much of the
time.

    python bench/micro/codec.py [--json]
"""

from __future__ import annotations

import json
import pickle
import sys
import time
from collections.abc import Callable
from typing import Any

from shoal._runtime._native import core

ROUNDS = 5
BUDGET_S = 0.02  # of one round


def cases() -> dict[str, Any]:
    found: dict[str, Any] = {
        "None": None,
        "int": 12345,
        "float": 1.5,
        "str of 3": "abc",
        "(int, str)": (12345, "hello there"),
        "dict of 10 str: float": {f"key{i}": i * 1.1 for i in range(10)},
        "list of 10,000 floats": [i * 1.1 for i in range(10_000)],
        "list of 1,000 dicts": [{"id": i, "name": f"n{i}", "v": i * 0.5} for i in range(1000)],
        "bytes, 100 MB": bytes(100_000_000),
    }
    try:
        import numpy as np
    except ImportError:
        return found
    found["array of 5"] = np.arange(5.0)
    found["numpy scalar"] = np.float64(3.3)
    found["array, 100 MB"] = np.zeros(12_500_000)
    return found


def best(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    number = max(1, int(BUDGET_S / (time.perf_counter() - begin + 1e-9)))
    times = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        for _ in range(number):
            action()
        times.append((time.perf_counter() - begin) / number)
    return min(times) * 1e9


def measure(value: Any) -> dict[str, float]:
    once = sum(core.codec_benchmark(value, 1)[:2])
    number = max(1, int(BUDGET_S * 1e9 / (once + 1)))
    results = [core.codec_benchmark(value, number) for _ in range(ROUNDS)]
    names = ("encode", "decode", "to_word", "from_word")
    found = {name: min(result[i] for result in results) for i, name in enumerate(names)}
    pickled = pickle.dumps(value, 5)
    assert (
        core.codec_encode(value).summarize()
        == core.codec_encode(core.codec_encode(value).decode()).summarize()
    )
    found["dumps"] = best(lambda: pickle.dumps(value, 5))
    found["loads"] = best(lambda: pickle.loads(pickled))
    return found


def main() -> None:
    results = {name: measure(value) for name, value in cases().items()}
    if "--json" in sys.argv:
        print(json.dumps(results, indent=1))
        return
    columns = ("encode", "decode", "dumps", "loads", "to_word", "from_word")
    print(f"{'ns':24}" + "".join(f"{column:>14}" for column in columns))
    for name, row in results.items():
        shown = (f"{row[c]:14,.0f}" if row[c] else " " * 14 for c in columns)
        print(f"{name:24}" + "".join(shown))


if __name__ == "__main__":
    main()
