# SPDX-License-Identifier: Apache-2.0
"""Globals: the initializer's, counters, rebound ones, names that are not there yet."""

from process_pair import run

state = None
counter = 0
step = 1000
spam = []


def initialize(x):
    global state
    state = x


def add_state(i):
    return state + i


def count(_):
    global counter
    counter += 1
    return counter


def get_step():
    return step


def get_by_helper():
    return get_step()


def uses_later():
    return defined_later()


def append(x, into=[], *, by=step):
    into.append(x)
    return len(into), by


def print(*arguments, _print=print):  # a global that hides a built-in function
    return "hidden"


def shadowed():
    return print()


def tagged():
    return tagged.tag


tagged.tag = "tag"


def about_module():
    return __name__, __file__, state


def main(worker):
    global state, step, counter, defined_later
    worker.call(initialize, 5)
    assert worker.call(add_state, 1) == 6
    state = 100  # the name is the worker's since its initializer bound it
    assert worker.call(add_state, 1) == 6
    assert [worker.call(count, 0) for _ in range(3)] == [1, 2, 3]
    counter = 50
    assert worker.call(count, 0) == 4
    for value in (1000, 2000, 3000, 2000):
        step = value
        assert worker.call(get_step) == value
        assert worker.call(get_by_helper) == value
    assert worker.call(lambda: get_by_helper() + 1) == 2001
    try:
        worker.call(uses_later)
    except NameError as error:
        assert "defined_later" in str(error)
    else:
        raise AssertionError

    def defined_later():
        return 8

    assert worker.call(uses_later) == 8
    assert [worker.call(append, 1) for _ in range(2)] == [(1, 1000), (2, 1000)]
    assert worker.call(shadowed) == "hidden"
    assert worker.call(tagged) == "tag"
    name, file, _ = worker.call(about_module)
    assert (name, file) == (__name__, __file__)
    before = worker.definitions.length, worker.shipped
    for _ in range(3):
        assert worker.call(add_state, 1) == 6
    assert (worker.definitions.length, worker.shipped) == before


run(main)
