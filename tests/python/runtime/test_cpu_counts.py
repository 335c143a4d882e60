# SPDX-License-Identifier: Apache-2.0
"""How many workers there are when nobody said: as the standard library here, or as the user set."""

from __future__ import annotations

import os
import sys

import pytest

NEW = sys.version_info >= (3, 13)  # -X cpu_count, and os.process_cpu_count

SIZES = """
    import multiprocessing
    import sys
    from concurrent.futures import ProcessPoolExecutor
    from unittest import mock

    def sizes():
        with multiprocessing.Pool() as pool, ProcessPoolExecutor() as executor:
            return pool._processes, len(pool._pool), executor._max_workers

    if __name__ == "__main__":
        for name in sys.argv[1:]:
            mock.patch(f"os.{name}", lambda: 3).start()
        print(*sizes())
"""
NATIVE = """
    import shoal
    with shoal.Pool() as pool, shoal.Executor() as executor:
        print(shoal.cpu_count(), pool._engine.workers, executor._engine.workers)
"""


@pytest.fixture(params=["standard library", "shoal"])
def environment(request: pytest.FixtureRequest) -> dict[str, str]:
    return {"SHOAL_RUN": "1" if request.param == "shoal" else "0"}


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.skipif(not NEW, reason="CPython 3.13 brought both settings")
def test_default_sizes_obey_the_interpreters_settings(interpreter, environment, count) -> None:
    by_option = interpreter(SIZES, env=environment, options=("-X", f"cpu_count={count}"))
    assert by_option.check().split() == [str(count)] * 3
    by_variable = interpreter(SIZES, env={**environment, "PYTHON_CPU_COUNT": str(count)})
    assert by_variable.check().split() == [str(count)] * 3


def test_default_sizes_obey_a_patched_function(interpreter, environment) -> None:
    name = "process_cpu_count" if NEW else "cpu_count"
    assert interpreter(SIZES, name, env=environment).check().split() == ["3"] * 3


def test_default_sizes_are_the_standard_librarys(interpreter) -> None:
    under_shoal = interpreter(SIZES, env={"SHOAL_RUN": "1"}).check()
    assert under_shoal == interpreter(SIZES, env={"SHOAL_RUN": "0"}).check()


@pytest.mark.parametrize("count", [1, 5])
def test_native_defaults_obey_the_interpreters_settings(interpreter, count) -> None:
    by_option = interpreter(NATIVE, options=("-X", f"cpu_count={count}"))
    assert by_option.check().split() == [str(count)] * 3
    by_variable = interpreter(NATIVE, env={"PYTHON_CPU_COUNT": str(count)})
    assert by_variable.check().split() == [str(count)] * 3


def test_native_default_is_the_affinity_without_them(interpreter) -> None:
    one = min(os.sched_getaffinity(0))
    program = f"import os; os.sched_setaffinity(0, [{one}])\nimport shoal; print(shoal.cpu_count())"
    assert interpreter(program).check() == "1\n"
    assert interpreter(program, env={"PYTHON_CPU_COUNT": "default"}).check() == "1\n"


def test_lokys_default_is_lokys_count(interpreter) -> None:
    pytest.importorskip("joblib")
    program = """
        from joblib.externals.loky import cpu_count, get_reusable_executor
        if __name__ == "__main__":
            executor = get_reusable_executor()
            print(executor._max_workers, cpu_count(), type(executor).__module__)
            executor.shutdown()
    """
    done = interpreter(program, env={"SHOAL_RUN": "1", "LOKY_MAX_CPU_COUNT": "1"})
    assert done.check().split() == ["1", "1", "shoal.adapters._loky"]
