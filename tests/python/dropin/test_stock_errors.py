# SPDX-License-Identifier: Apache-2.0
"""Errors of the drop-in are what the standard library's are: their causes, and how often they are
told. Compiled main modules run as their sources do.
"""

from __future__ import annotations

import py_compile
import textwrap
from pathlib import Path
from typing import Any

import pytest

METHODS = ["fork", "spawn", "forkserver"]
STOCK_AND_SHOAL = [{}, {"SHOAL_RUN": "1"}]


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("env", STOCK_AND_SHOAL)
def test_result_that_cannot_be_sent_has_no_cause(
    interpreter: Any, method: str, env: dict[str, str]
) -> None:
    interpreter(
        """
        import multiprocessing, sys
        from multiprocessing.pool import MaybeEncodingError

        def local(_):
            return lambda: None

        if __name__ == "__main__":
            with multiprocessing.get_context(sys.argv[1]).Pool(1) as pool:
                for call in (lambda: pool.apply(local, (1,)), lambda: pool.map(local, [1])):
                    try:
                        call()
                    except MaybeEncodingError as error:
                        assert error.__cause__ is None and "local" in error.exc
                    else:
                        raise AssertionError
        """,
        method,
        env=env,
    ).check()


@pytest.mark.parametrize("env", STOCK_AND_SHOAL)
def test_failing_initializer_is_logged_once_for_each_worker(
    interpreter: Any, method: str, env: dict[str, str]
) -> None:
    """Nobody waits for the future: no worker may be started in the place of one that failed."""
    done = interpreter(
        """
        import multiprocessing, sys, time
        from concurrent.futures import ProcessPoolExecutor
        from concurrent.futures.process import BrokenProcessPool

        def fail():
            raise ValueError("no database")

        if __name__ == "__main__":
            context = multiprocessing.get_context(sys.argv[1])
            executor = ProcessPoolExecutor(1, context, initializer=fail)
            future = executor.submit(abs, 1)
            while multiprocessing.active_children():
                time.sleep(0.01)
            for call in (future.result, lambda: executor.submit(abs, 1)):
                try:
                    call()
                except BrokenProcessPool as error:
                    print(error)
                else:
                    raise AssertionError
        """,
        method,
        env=env,
    )
    done.check()
    assert done.err.count("Exception in initializer:") == 1
    assert done.err.count("ValueError: no database") == 1
    if env:
        assert done.out.count("ValueError: no database") == 2


COMPILED = """
    import multiprocessing, os, sys
    from concurrent.futures import ProcessPoolExecutor

    HOME = __name__
    imported_by = os.getpid()
    late = "never"

    def where(_):
        return HOME, imported_by == os.getpid(), late

    if __name__ == "__main__":
        late = "later"
        context = multiprocessing.get_context(sys.argv[1])
        with context.Pool(1) as pool:
            print(pool.apply(where, (1,)))
        with ProcessPoolExecutor(1, context) as executor:
            print(executor.submit(where, 1).result())
"""


@pytest.mark.parametrize("env", STOCK_AND_SHOAL)
def test_compiled_main_module_is_imported_by_workers(
    interpreter: Any, tmp_path: Path, method: str, env: dict[str, str]
) -> None:
    source, compiled = tmp_path / "source.py", tmp_path / "main.pyc"
    source.write_text(textwrap.dedent(COMPILED))
    py_compile.compile(str(source), str(compiled), doraise=True)
    source.unlink()
    there = ("__main__", False, "later") if method == "fork" else ("__mp_main__", True, "never")
    if method == "forkserver":  # from 3.14 on the fork server imports it for all
        there = (*there[:1], None, *there[2:])
    out = interpreter(compiled, method, env=env).check().splitlines()
    for line in out:
        found = eval(line)
        assert found[0] == there[0] and found[2] == there[2] and there[1] in (None, found[1])
    assert len(out) == 2
