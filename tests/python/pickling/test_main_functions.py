# SPDX-License-Identifier: Apache-2.0
"""Functions and classes of `__main__`, lambdas and closures, under every start method; no guard, no
second run of main.
"""

from __future__ import annotations

import pytest
import tasks
from pool_kinds import SHOAL, WATCHDOG, make_executor, make_pool

pytestmark = WATCHDOG
STARTS = ("zygote", "fork", "spawn")


@pytest.fixture(params=SHOAL, scope="module")
def pool(request):
    with make_pool(request.param) as pool:
        yield pool


@pytest.fixture(params=STARTS)
def program(request, interpreter):
    """Runs a main program whose START is the start method."""

    def run(source: str, *, threads: bool = False) -> str:
        import textwrap

        lines = [f"START = {request.param!r}"]
        if threads:  # a thread keeps the template from being a snapshot
            lines.append(
                "import threading; stop = threading.Event(); "
                "threading.Thread(target=stop.wait).start()"
            )
        lines.append(textwrap.dedent(source))
        if threads:
            lines.append("stop.set()")
        finished = interpreter("\n".join(lines))
        out = finished.check()
        assert finished.err == ""
        return out

    return run


@pytest.fixture(params=[False, True], ids=["alone", "threaded"])
def threads(request):
    return request.param


# ---- Lambdas and closures ------------------------------------------------------------------------


def test_lambdas_and_closures_run_in_workers(pool):
    factor = 3
    assert pool.map(lambda x: x * factor, range(5)) == [0, 3, 6, 9, 12]
    assert pool.apply(lambda: factor) == 3

    def nested(x, y=factor):
        return x + y

    assert pool.map(nested, [1, 2]) == [4, 5]
    assert list(pool.imap(lambda x: nested(x), [1, 2])) == [4, 5]


def test_lambdas_may_be_arguments_and_results(pool):
    assert pool.apply(lambda f: f(4), (lambda x: x + 1,)) == 5
    assert pool.apply(lambda: lambda x: x * 2)(21) == 42


def test_closure_is_sent_again_when_its_cell_changes(pool):
    factor = 1

    def scaled(x):
        return x * factor

    assert pool.map(scaled, [1, 2]) == [1, 2]
    factor = 10
    assert pool.map(scaled, [1, 2]) == [10, 20]


def test_recursive_closures_run(pool):
    def factorial(n):
        return 1 if n == 0 else n * factorial(n - 1)

    assert pool.apply(factorial, (10,)) == 3628800


def test_lambdas_work_as_initializer_and_in_executors():
    with make_executor("shoal-spawn", 1, initializer=lambda: tasks.remember(5)) as executor:
        assert executor.submit(lambda: tasks.remembered()).result() == [5]


def test_many_lambdas_are_told_apart(pool):
    functions = [lambda x, i=i: x + i for i in range(200)]
    assert [pool.apply(f, (1000,)) for f in functions] == [1000 + i for i in range(200)]


def test_local_classes_go_both_ways(pool):
    class Point:
        def __init__(self, x):
            self.x = x

        def moved(self):
            return Point(self.x + 1)

    assert pool.apply(lambda p: p.moved().x, (Point(1),)) == 2
    assert isinstance(pool.apply(Point, (3,)), Point)


# ---- A main program ------------------------------------------------------------------------------


def test_no_guard_is_needed_and_main_is_run_once(program, threads):
    out = program(
        """
        import shoal

        print("main runs", flush=True)

        def square(x):
            return x * x

        with shoal.Pool(2, start=START) as pool:
            print(pool.map(square, range(5)))
        with shoal.Executor(2, start=START) as executor:
            print(executor.submit(square, 5).result())
        """,
        threads=threads,
    )
    assert out == "main runs\n[0, 1, 4, 9, 16]\n25\n"


def test_functions_find_globals_helpers_imports_and_constants_of_main(program, threads):
    program(
        """
        import math
        import os.path as path
        from collections import Counter
        import shoal

        FACTOR = 7
        table = {"a": 1}

        def helper(x):
            return x * FACTOR + table["a"]

        def work(x):
            return helper(x), math.floor(2.5), path.basename("a/b"), Counter("aab")["a"]

        with shoal.Pool(2, start=START) as pool:
            assert pool.map(work, [1, 2]) == [(8, 2, "b", 2), (15, 2, "b", 2)]
            assert pool.apply(lambda: work(1)) == (8, 2, "b", 2)
        """,
        threads=threads,
    )


def test_classes_of_main_keep_their_identity_both_ways(program, threads):
    program(
        """
        import enum
        from dataclasses import dataclass
        from typing import NamedTuple
        import shoal

        class Plain:
            count = 0
            def __init__(self, x):
                self.x = x
            def __eq__(self, other):
                return type(self) is type(other) and self.x == other.x
            __hash__ = None

        class Derived(Plain):
            def double(self):
                return Derived(super().__getattribute__("x") * 2)

        class Slots:
            __slots__ = ("x",)
            def __init__(self, x):
                self.x = x

        @dataclass
        class Data:
            x: int

        @dataclass(frozen=True, slots=True) if "slots" in dataclass.__kwdefaults__ else dataclass
        class Frozen:
            x: int

        class Color(enum.Enum):
            RED = 1
            BLUE = 2

        class Pair(NamedTuple):
            a: int
            b: int

        class Oops(Exception):
            def __init__(self, code):
                super().__init__(code)
                self.code = code

        def check(value):
            names = globals()
            assert type(value) is names[type(value).__name__], type(value)
            assert isinstance(value, (Plain, Slots, Data, Frozen, Color, Pair, Oops))
            return value

        def make(name):
            makers = {"Plain": lambda: Plain(1), "Derived": lambda: Derived(2).double(),
                      "Slots": lambda: Slots(3), "Data": lambda: Data(4),
                      "Color": lambda: Color.RED, "Pair": lambda: Pair(5, 6)}
            return makers[name]()

        def fail(code):
            raise Oops(code)

        with shoal.Pool(2, start=START) as pool:
            for value in (Plain(1), Derived(2), Slots(3), Data(4), Frozen(5), Color.BLUE,
                          Pair(1, 2), Oops(3)):
                back = pool.apply(check, (value,))
                assert type(back) is type(value), (type(back), type(value))
                assert getattr(back, "x", None) == getattr(value, "x", None)
            assert pool.apply(check, (Color.RED,)) is Color.RED
            for name in ("Plain", "Derived", "Slots", "Data", "Color", "Pair"):
                assert type(pool.apply(make, (name,))) is globals()[name]
            assert pool.apply(make, ("Derived",)).x == 4
            assert pool.map(check, [Plain(i) for i in range(10)]) == [Plain(i) for i in range(10)]
            try:
                pool.apply(fail, (7,))
            except Oops as error:
                assert error.code == 7
            else:
                raise AssertionError
        """,
        threads=threads,
    )


def test_initializer_of_main_sets_globals_for_its_tasks(program, threads):
    program(
        """
        import shoal

        resource = None
        calls = 0

        def prepare(value):
            global resource
            resource = value

        def use(x):
            global calls
            calls += 1
            return resource, calls

        with shoal.Pool(1, prepare, ("db",), start=START) as pool:
            assert pool.map(use, range(3)) == [("db", 1), ("db", 2), ("db", 3)]
            assert pool.apply(use, (0,)) == ("db", 4)
        assert (resource, calls) == (None, 0)
        """,
        threads=threads,
    )


def test_functions_defined_after_the_pool_is_made_run(program, threads):
    program(
        """
        import shoal

        with shoal.Pool(2, start=START) as pool:
            def late(x):
                return x + offset

            offset = 5
            assert pool.map(late, [1, 2]) == [6, 7]

            class Late:
                def __init__(self, x):
                    self.x = x

            assert pool.apply(lambda o: o.x, (Late(4),)) == 4
            assert type(pool.apply(Late, (3,))) is Late
        """,
        threads=threads,
    )


def test_redefined_functions_are_sent_again_as_in_a_notebook(program, threads):
    program(
        """
        import shoal

        with shoal.Pool(2, start=START) as pool:
            for version in range(5):
                source = (
                    f"def f(x): return x + helper() + {version}\\n"
                    f"def helper(): return {version} * 100"
                )
                exec(source, globals())
                assert pool.map(f, [1000]) == [1000 + version * 101], version
            offset = 1
            def g(x):
                return x + offset
            assert pool.apply(g, (1,)) == 2
            offset = 10
            assert pool.apply(g, (1,)) == 11
        """,
        threads=threads,
    )


def test_main_from_standard_input_and_from_c(interpreter):
    source = (
        "import shoal\n"
        "def f(x): return x + 1\n"
        "with shoal.Pool(2, start='{}') as p: print(p.map(f, [1, 2]))\n"
    )
    import subprocess
    import sys

    for start in STARTS:
        text = source.format(start)
        for arguments, given in ((["-"], text), (["-c", text], None)):
            done = subprocess.run(
                [sys.executable, *arguments],
                input=given,
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert (done.stdout, done.stderr) == ("[2, 3]\n", "")


def test_main_started_with_m_finds_its_functions(interpreter, tmp_path):
    import subprocess
    import sys

    package = tmp_path / "a_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "part.py").write_text("VALUE = 4\n")
    (package / "__main__.py").write_text(
        "import sys, shoal\nfrom . import part\nfrom .part import VALUE\n"
        "def f(x): return x + part.VALUE + VALUE\n"
        "with shoal.Pool(2, start=sys.argv[1]) as p: print(p.map(f, [1, 2]))\n"
    )
    for start in STARTS:
        done = subprocess.run(
            [sys.executable, "-m", "a_package", start],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.stdout, done.stderr) == ("[9, 10]\n", "")


def test_locks_caches_and_dispatch_of_main_work(program, threads):
    program(
        """
        import functools
        import threading
        import shoal

        lock = threading.Lock()

        @functools.lru_cache(maxsize=None)
        def cached(x):
            return x * 2

        @functools.singledispatch
        def describe(x):
            return "object"

        @describe.register
        def _(x: int):
            return "int"

        def decorate(f):
            @functools.wraps(f)
            def inner(*args):
                return ("decorated", f(*args))
            return inner

        @decorate
        def plain(x):
            return x

        def locked(x):
            with lock:
                return cached(x), describe(x), describe("")

        with shoal.Pool(2, start=START) as pool:
            assert pool.map(locked, [1, 2]) == [(2, "int", "object"), (4, "int", "object")]
            assert pool.map(cached, [1, 2]) == [2, 4]
            assert pool.map(plain, [1, 2]) == [("decorated", 1), ("decorated", 2)]
        """,
        threads=threads,
    )


def test_methods_classmethods_and_callable_instances_of_main_run(program, threads):
    program(
        """
        import shoal

        class Tool:
            made = "here"
            def __init__(self, base):
                self.base = base
            def add(self, x):
                return self.base + x
            @classmethod
            def make(cls, x):
                return cls(x).base, cls.made
            @staticmethod
            def twice(x):
                return x * 2
            def __call__(self, x):
                return self.base * x

        with shoal.Pool(2, start=START) as pool:
            tool = Tool(10)
            assert pool.map(tool.add, [1, 2]) == [11, 12]
            assert pool.map(tool, [1, 2]) == [10, 20]
            assert pool.map(Tool.make, [1]) == [(1, "here")]
            assert pool.map(Tool.twice, [1]) == [2]
            assert pool.map(Tool.add, [tool], chunksize=1) if False else True
        """,
        threads=threads,
    )
