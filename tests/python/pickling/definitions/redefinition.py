# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: F821
"""A notebook: cells run again, and define the same names anew."""

from process_pair import run

CELL = """
def helper(x):
    return x + {n}

def task(x):
    return helper(x) * {n}

class Point:
    n = {n}
    def __init__(self, x):
        self.x = x
    def get(self):
        return helper(self.x) * self.n
"""


def name_of(obj):
    return type(obj).__name__, type(obj).n


def identity(obj):
    return obj


def main(worker):
    kept = []
    for n in (1, 2, 3):
        exec(CELL.format(n=n), globals())
        assert worker.call(task, 1) == (1 + n) * n
        assert worker.call(Point.get, Point(1)) == (1 + n) * n
        assert type(worker.call(identity, Point(1))) is Point
        assert worker.call(lambda: Point(1).get()) == (1 + n) * n
        kept.append((task, Point(n)))
    for number, (old_task, old_point) in enumerate(kept, 1):
        # Old functions see today's globals, as they do here; old classes are what they were.
        assert worker.call(old_task, 1) == old_task(1)
        assert worker.call(name_of, old_point) == ("Point", number)
        assert type(worker.call(identity, old_point)) is type(old_point)


run(main)
