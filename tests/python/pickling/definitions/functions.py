# SPDX-License-Identifier: Apache-2.0
"""Decorated, cached, generic, recursive, nested functions; lambdas and closures, both ways."""

import contextlib
import functools
import gc
import logging
import math as m
import os.path
import random
import re
import threading

from process_pair import run


@functools.lru_cache(maxsize=10)
def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)


class Thing:
    def __init__(self):
        self.n = 0

    @functools.cached_property
    def value(self):
        self.n += 1
        return self.n

    @functools.cache
    def method(self, x):
        return x * 2

    @functools.singledispatchmethod
    def generic(self, x):
        return "any"

    @generic.register
    def _(self, x: int):
        return "int"

    @staticmethod
    def static(x):
        return x + 1

    @classmethod
    def name(cls):
        return cls.__name__


def thing():
    t = Thing()
    return t.value, t.value, t.method(3), t.generic(1), t.generic("a"), t.static(1), t.name()


@functools.singledispatch
def show(x):
    return "any"


@show.register
def _(x: int):
    return "int"


@show.register(Thing)
def _(x):
    return "Thing"


def dispatch():
    show.register(str, lambda x: "str")
    return show(1.5), show(1), show(Thing()), show("")


lock = threading.Lock()
recursive = threading.RLock()
condition = threading.Condition(lock)
event = threading.Event()
local = threading.local()
LockType = type(lock)


def locks():
    local.x = 1
    with lock, recursive:
        return condition._lock is lock, isinstance(lock, LockType), event.is_set(), local.x


def timed(function):
    @functools.wraps(function)
    def wrapper(*arguments):
        return "timed", function(*arguments)

    return wrapper


@timed
def decorated(x):
    return even(x)


def even(n):
    return True if n == 0 else odd(n - 1)


def odd(n):
    return False if n == 0 else even(n - 1)


def modules(x):
    return m.sqrt(x), os.path.join("a", "b")


log = logging.getLogger("x")
pattern = re.compile("a+")
numbers = random.Random(3)


def objects():
    log.debug("x")
    return pattern.match("aa").end(), numbers.random()


@contextlib.contextmanager
def manager():
    yield factor


factor = 7


def generators():
    with manager() as value:
        return (
            [x * value for x in range(2)],
            dict.fromkeys("a", factor),
            sum(x * factor for x in [1]),
        )


def make_counter():
    n = 0

    def increase():
        nonlocal n
        n += 1
        return n

    def get():
        return n

    return increase, get


increase, get = make_counter()


def shared_cell():
    increase()
    increase()
    return get()


square = lambda x: x * x  # noqa: E731
first = []
second = [first]


def use_square(x):
    return square(x)


TABLE = {"square": square, "use": use_square, "class": Thing}


def table():
    return TABLE["use"](3), TABLE["use"] is use_square, TABLE["class"] is Thing, second[0] is first


def table_identity():
    return TABLE["square"] is square


class Singleton:
    def __reduce__(self):
        return "SINGLETON"


SINGLETON = Singleton()
HOLDER = {"k": SINGLETON}


def singleton(x):
    return x is SINGLETON, HOLDER["k"] is SINGLETON


def annotated(x: int, y: "Thing" = None) -> "Thing":
    return annotated.__annotations__["x"] is int


def main(worker):
    assert worker.call(fib, 50) == 12586269025
    assert worker.call(thing) == (1, 1, 6, "int", "any", 2, "Thing")
    assert worker.call(dispatch) == ("any", "int", "Thing", "str")
    assert worker.call(locks) == (True, True, False, 1)
    assert worker.call(decorated, 10) == ("timed", True)
    assert worker.call(modules, 4) == (2.0, "a/b")
    assert worker.call(objects) == (2, random.Random(3).random())
    assert worker.call(generators) == ([0, 7], {"a": 7}, 7)
    assert worker.call(shared_cell) == 2 and get() == 0
    assert worker.call(use_square, 3) == 9 and worker.call(square, 4) == 16
    assert worker.call(table) == (9, True, True, True) and worker.call(table_identity)
    assert worker.call(singleton, SINGLETON) == (True, True)
    assert worker.call(annotated, 1)
    closures(worker)
    not_kept(worker)
    collected(worker)


def closures(worker):
    result = worker.call(lambda k: lambda x: x + k + factor, 5)
    assert result(1) == 13

    def factorial(n):
        return 1 if n == 0 else n * factorial(n - 1)

    assert worker.call(factorial, 5) == 120

    class Local:
        z = 1

        def __init__(self):
            self.a = 1

        def me(self):
            return Local is type(self), __class__ is Local

    back = worker.call(lambda x: x, Local())
    assert type(back) is Local
    back = worker.call(lambda x: [setattr(type(x), "z", 99), x][1], Local())
    assert type(back) is Local and Local.z == 1
    assert worker.call(Local().me) == (True, True)
    pair = worker.call(lambda: make_counter())
    assert (pair[0](), pair[0](), pair[1]()) == (1, 2, 2)
    foreign = worker.call(lambda: type("Foreign", (), {"v": 3}))
    assert foreign.v == 3 and worker.call(lambda c: c, foreign) is foreign


def not_kept(worker):
    key = worker.definitions.function_key
    assert key(Thing().name.__func__) is not None
    for function in (Thing().generic, functools.partial(even, 4), [].append, Thing.name):
        assert key(function) is None, function
    assert worker.call(functools.partial(even, 4)) is True

    def over(items):
        return lambda: items.append(1) or len(items)

    function = over([])
    assert key(function) is None
    assert (worker.call(function), worker.call(function)) == (1, 1)

    def settable(k):
        def get():
            return k

        def set(value):
            nonlocal k
            k = value

        return get, set

    get, set = settable(1)
    before = key(get)
    assert worker.call(get) == 1 and key(get) == before
    set(2)
    assert worker.call(get) == 2 and key(get) != before
    for function, arguments in ((max, (1, 2)), (str.upper, ("a",)), (Thing.static, (1,))):
        assert key(function) is not None
        worker.call(function, *arguments)


def collected(worker):
    definitions = worker.definitions
    gc.collect()
    definitions.dropped_tokens()

    def once():
        def recursive(n):
            return recursive(n - 1) if n else "end"

        def other():
            return 1

        tokens = {definitions.function_key(f)[1] for f in (recursive, other)}
        assert worker.call(recursive, 2) == "end" and worker.call(other) == 1
        return tokens

    tokens = once()
    gc.collect()
    assert set(definitions.dropped_tokens()) == tokens


run(main)
