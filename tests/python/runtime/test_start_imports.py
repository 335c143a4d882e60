# SPDX-License-Identifier: Apache-2.0
"""Small programs start soon because shoal imports little beside what the standard library does."""

from __future__ import annotations

import pytest

# Each takes longer to import than all of shoal.
LARGE = {"typing", "ast", "ctypes", "opcode", "dis", "inspect", "dataclasses", "cloudpickle",
         "asyncio", "logging", "numpy", "argparse"}  # fmt: skip

POOL = """
    import multiprocessing
    def square(x):
        return x * x
    if __name__ == "__main__":
        with multiprocessing.Pool(1) as pool:
            assert pool.map(square, range(4)) == [0, 1, 4, 9]
            theirs = pool.apply(loaded)
"""
EXECUTOR = """
    from concurrent.futures import ProcessPoolExecutor
    def square(x):
        return x * x
    if __name__ == "__main__":
        with ProcessPoolExecutor(1) as executor:
            assert list(executor.map(square, range(4))) == [0, 1, 4, 9]
            theirs = executor.submit(loaded).result()
"""
QUEUE = """
    import multiprocessing
    def work(queue):
        queue.put(loaded())
    if __name__ == "__main__":
        queue = multiprocessing.get_context("fork").Queue()
        process = multiprocessing.get_context("fork").Process(target=work, args=(queue,))
        process.start()
        theirs = queue.get()
        process.join()
"""
BEFORE = """
    import sys
    def loaded():
        return set(sys.modules)
"""
AFTER = """
    if __name__ == "__main__":
        print(*(loaded() | theirs))
"""


@pytest.mark.parametrize("program", [POOL, EXECUTOR, QUEUE], ids=["Pool", "Executor", "Queue"])
def test_nothing_large_is_imported_for_a_small_program(interpreter, program: str) -> None:
    source = BEFORE + program + AFTER
    plain = set(interpreter(source, env={"SHOAL_RUN": "0"}).check().split())
    ours = set(interpreter(source, env={"SHOAL_RUN": "1"}).check().split())
    assert "shoal._runtime._native" in ours and "shoal._runtime._native" not in plain
    assert not (ours - plain) & LARGE
