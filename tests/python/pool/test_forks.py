# SPDX-License-Identifier: Apache-2.0
"""Code that the pool calls in the program (callbacks, what unpickles a result, what pickles
arguments) may fork. The child goes on there without the pool: it is told so, and never crashes.
"""

from __future__ import annotations

import textwrap

import pytest

WAYS = {
    "a callback": """
        pool.apply_async(int, callback=fork).get()
    """,
    "a callback of a map": """
        pool.map_async(abs, [1, 2], callback=fork).get()
    """,
    "a result": """
        pool.apply(Forks, (True,))
    """,
    "a result that is waited for": """
        pool.apply_async(Forks, (True,)).get()
    """,
    "a result before the one that is waited for": """
        pool.apply_async(Forks, (True,))
        pool.apply_async(int).get()
    """,
    "a result before the future that is waited for": """
        executor = shoal.Executor(1)
        executor.submit(Forks, True)
        executor.submit(time.sleep, 0.01).result()
        executor.shutdown() if os.getpid() == me else None
    """,
    "a result that is polled": """
        result = pool.apply_async(Forks, (True,))
        while not result.ready():
            pass
    """,
    "an item of a map": """
        pool.map(Forks, [True, False])
    """,
    "an item of an iterator": """
        list(pool.imap(Forks, [True, False]))
    """,
    "an argument": """
        pool.apply(type, (Forks(True, here=True),))
    """,
    "an input": """
        list(pool.imap(abs, (value if value else fork() or 1 for value in range(3))))
    """,
    "the end": """
        pool.apply_async(time.sleep, (600,), error_callback=fork)
        pool.terminate()
    """,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_child_that_is_forked_in_code_that_the_pool_calls_goes_on_without_it(
    interpreter, way: str
) -> None:
    program = """
    import os, sys, time, warnings
    import shoal

    warnings.simplefilter("ignore")
    me = os.getpid()
    children = []

    def fork(value=None):
        child = os.fork()
        if child:
            children.append(child)

    def rebuild(forks):
        if forks and os.getpid() == me:
            fork()
        return 5

    class Forks:
        def __init__(self, forks, here=False):
            self.forks, self.here = forks, here

        def __reduce__(self):
            if self.here:
                fork()
            return rebuild, (self.forks and not self.here,)

    if __name__ == "__main__":
        pool = shoal.Pool(1)
        try:
            exec(sys.argv[1])
        except shoal.ForkedPool:
            assert os.getpid() != me
        except ValueError as error:
            assert os.getpid() != me, error
        if os.getpid() != me:
            os._exit(0)
        print([os.waitpid(child, 0)[1] for child in children])
        pool.terminate()
    """
    done = interpreter(program, textwrap.dedent(WAYS[way]))
    assert done.check() == "[0]\n"
