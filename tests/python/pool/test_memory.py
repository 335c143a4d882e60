# SPDX-License-Identifier: Apache-2.0
"""A pool that has ended leaves no memory behind, whatever of it the program still holds."""

from __future__ import annotations

import textwrap

import pytest

USES = {
    "a result": """
        with shoal.Pool(1) as pool:
            kept.append(pool.map_async(function, [1, 2, 3]))
            kept[-1].wait()
    """,
    "an error": """
        try:
            with shoal.Pool(1) as pool:
                pool.map(function, ["1", 2])
        except TypeError as error:
            kept.append(error)
    """,
    "an iterator": """
        with shoal.Pool(1) as pool:
            kept.append(pool.imap(function, range(10_000)))
            next(kept[-1])
    """,
    "a failed start": """
        flag = os.path.join(folder, "first")
        with shoal.Pool(1, fail_once, (flag,)) as pool:
            pool.apply(function, (1,))
        os.unlink(flag)
    """,
}


@pytest.mark.parametrize("use", USES)
def test_a_pool_that_has_ended_leaves_no_memory_behind(interpreter, tmp_path, use: str) -> None:
    program = """
    import gc, os, sys
    import shoal
    from shoal._runtime._native import core

    folder = sys.argv[1]
    SIZE = 100_000  # of a function, or of an error

    def fail_once(flag):
        try:
            os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        raise RuntimeError("x" * SIZE)

    def blocks():
        core.reap()
        return core.check_arena()

    def use(kept):
        big = "x" * SIZE
        def function(value, big=big):
            return value + len(big)
        exec(sys.argv[2], {**globals(), "kept": kept, "function": function})

    if __name__ == "__main__":
        use([])
        gc.collect()
        kept, before = [], blocks()
        for _ in range(3):
            use(kept)
        print(blocks() - before)
        kept.clear()
        gc.collect()
        print(blocks() - before)
    """
    arguments = str(tmp_path), textwrap.dedent(USES[use])
    done = interpreter(program, *arguments, env={"SHOAL_TEST_CORE": "1"})
    assert done.check().split() == ["0", "0"]
