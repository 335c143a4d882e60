# SPDX-License-Identifier: Apache-2.0
"""Modules that no other process can import are sent like the main module."""

import sys
import types
import xml.dom.minidom

from process_pair import run

made = types.ModuleType("made")
sys.modules["made"] = made
exec(
    """
K = 3
def f(x): return x * K + g(x)
def g(x): return 1
class C:
    def __init__(self, v): self.v = v
    def m(self): return self.v + K
""",
    made.__dict__,
)
from_made = made.f
detached = {"__name__": "nowhere", "K": 4}
exec("def h(x): return x * K + len(str(i(x)))\ndef i(x): return K", detached)
without_home = detached["h"]


def use(x):
    return made.f(x), from_made(x), made.C(1).m()


def make(v):
    return made.C(v)


def submodule():
    return xml.dom.minidom.parseString("<a/>").documentElement.tagName


def main(worker):
    assert worker.call(use, 2) == (7, 7, 4)
    assert type(worker.call(make, 4)) is made.C
    assert worker.call(made.f, 2) == 7
    assert worker.call(without_home, 2) == 9
    assert worker.call(submodule) == "a"
    if worker.pid:  # a fork has the module, and only main's names are followed further
        return
    made.K = 5
    assert worker.call(use, 2) == (11, 11, 6)


run(main)
