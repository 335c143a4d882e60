# SPDX-License-Identifier: Apache-2.0
"""What do shoal's pickler and definitions cost, compared with plain pickle? Prints microseconds.

Unfair if another process runs on the same core: use `taskset` and an idle machine. The smallest of
five repetitions is shown.
"""

from __future__ import annotations

import datetime
import fractions
import pickle
import timeit
from collections.abc import Callable
from typing import Any

from shoal._pickling import _pickler
from shoal._pickling._definitions import Definitions


class Point:
    def __init__(self) -> None:
        self.x = 1


def task(x: int) -> int:
    return x + offset


offset = 3


def microseconds(call: Callable[[], Any], number: int = 20_000) -> float:
    return min(timeit.repeat(call, number=number, repeat=5)) / number * 1e6


def main() -> None:
    definitions = Definitions()
    values: dict[str, Any] = {
        "tuple": (1, "a"),
        "instance of main": Point(),
        "1000 instances of main": [Point() for _ in range(1000)],
        "Fraction": fractions.Fraction(1, 2),
        "timedelta": datetime.timedelta(3),
    }
    print(f"{'':24}{'pickle':>10}{'shoal':>10}{'loads':>10}{'shoal':>10}")
    for name, value in values.items():
        number = 200 if isinstance(value, list) else 20_000
        with definitions.active():
            data = _pickler.dumps(value)[0]
            figures = [
                microseconds(lambda value=value: pickle.dumps(value, 5), number),
                microseconds(lambda value=value: _pickler.dumps(value), number),
                microseconds(lambda data=data: pickle.loads(data), number),
                microseconds(lambda data=data: _pickler.loads(data), number),
            ]
        print(f"{name:24}" + "".join(f"{figure:10.2f}" for figure in figures))
    for name, function in {"built-in": len, "of main": task, "lambda": lambda x: x}.items():
        definitions.function_key(function)
        cost = microseconds(lambda function=function: definitions.function_key(function))
        print(f"function_key, {name:10}{cost:10.2f}")


main()
