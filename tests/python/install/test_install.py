# SPDX-License-Identifier: Apache-2.0
"""install(): exactly the stock classes are swapped, in every process of the program.

Every test runs a program of its own: what install() changes is the whole interpreter.
"""

from __future__ import annotations

import pytest

START_METHODS = ["fork", "spawn", "forkserver"]  # (joblib adds its own to those of multiprocessing)


def test_names_imported_before_install_make_shoals_classes(interpreter) -> None:
    interpreter("""
        import concurrent.futures
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import Pool
        from multiprocessing.pool import Pool as PoolClass

        import shoal

        shoal.install()
        for make in (Pool, PoolClass, multiprocessing.Pool, multiprocessing.get_context().Pool):
            with make(1) as pool:
                assert isinstance(pool, shoal.Pool), type(pool)
                assert isinstance(pool, PoolClass), type(pool)
                assert pool.map(abs, [-1, 2]) == [1, 2]
        for make in (ProcessPoolExecutor, concurrent.futures.ProcessPoolExecutor):
            with make(1) as executor:
                assert isinstance(executor, shoal.Executor), type(executor)
                assert isinstance(executor, ProcessPoolExecutor), type(executor)
                assert list(executor.map(abs, [-1, 2])) == [1, 2]
    """).check()


def test_names_imported_after_install_make_shoals_classes(interpreter) -> None:
    interpreter("""
        import shoal

        shoal.install()
        shoal.install()
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import Pool

        with Pool(1) as pool:
            assert isinstance(pool, shoal.Pool), type(pool)
        with ProcessPoolExecutor(1) as executor:
            assert isinstance(executor, shoal.Executor), type(executor)
    """).check()


@pytest.mark.parametrize("method", START_METHODS)
def test_pools_of_a_context_are_shoals(interpreter, method: str) -> None:
    interpreter(
        """
        import multiprocessing
        import sys
        from concurrent.futures import ProcessPoolExecutor

        import shoal

        shoal.install()

        def double(value):
            return 2 * value

        if __name__ == "__main__":
            context = multiprocessing.get_context(sys.argv[1])
            with context.Pool(2) as pool:
                assert isinstance(pool, shoal.Pool), type(pool)
                assert pool.map(double, range(9)) == list(range(0, 18, 2))
            with ProcessPoolExecutor(2, mp_context=context) as executor:
                assert isinstance(executor, shoal.Executor), type(executor)
                assert list(executor.map(double, range(9))) == list(range(0, 18, 2))
        """,
        method,
    ).check()


@pytest.mark.parametrize("method", START_METHODS)
def test_children_of_every_start_method_get_shoals_classes(interpreter, method: str) -> None:
    """The child's main module does not install: what it has came with its preparation data."""
    interpreter(
        """
        import multiprocessing
        import sys

        def report(queue):
            import multiprocessing.pool
            import concurrent.futures
            with multiprocessing.get_context("fork").Pool(1) as pool:
                kinds = [type(pool).__module__, pool.apply(abs, (-1,))]
            with concurrent.futures.ProcessPoolExecutor(1) as executor:
                kinds += [type(executor).__module__, executor.submit(abs, -2).result()]
            queue.put(kinds)

        if __name__ == "__main__":
            import shoal

            shoal.install()
            context = multiprocessing.get_context(sys.argv[1])
            queue = context.Queue()
            child = context.Process(target=report, args=(queue,))
            child.start()
            assert queue.get(timeout=60) == ["shoal._dropin._pool", 1, "shoal._dropin._executor", 2]
            child.join()
            assert child.exitcode == 0
        """,
        method,
    ).check()


def test_children_of_an_exec_get_shoals_classes_from_the_environment(interpreter) -> None:
    program = """
        import subprocess
        import sys

        code = "import multiprocessing.pool as p; print(type(p.Pool(1)).__module__)"
        for options in ([], ["-I"], ["-E"], ["-s"]):
            print(subprocess.check_output([sys.executable, *options, "-Wignore", "-c", code]))
    """
    with_shoal = interpreter(program, env={"SHOAL_RUN": "1"}).check()
    assert with_shoal.count("shoal._dropin._pool") == 4
    without = interpreter(program, env={"SHOAL_RUN": ""}).check()
    assert without.count("multiprocessing.pool") == 4


def test_without_the_variable_the_start_up_file_imports_nothing(interpreter) -> None:
    interpreter(
        "import sys; assert not [name for name in sys.modules if name.startswith('shoal')]",
        env={"SHOAL_RUN": ""},
    ).check()


def test_with_the_variable_nothing_is_imported_before_the_program_uses_it(interpreter) -> None:
    interpreter(
        """
        import sys

        def loaded(name):
            return [module for module in sys.modules if module.split(".")[0] == name]

        assert not loaded("shoal") and not loaded("multiprocessing") and not loaded("concurrent")
        import concurrent.futures
        assert not loaded("shoal")
        few = ["shoal", "shoal._install", "shoal._install._install", "shoal._install._swaps",
               "shoal._runtime", "shoal._runtime._import_hook", "shoal._runtime._imports",
               "shoal._runtime._leftovers"]
        import multiprocessing
        assert sorted(loaded("shoal")) == few
        assert "multiprocessing.pool" not in sys.modules
        import multiprocessing.pool
        assert sorted(loaded("shoal")) == few
        """,
        env={"SHOAL_RUN": "1"},
    ).check()


@pytest.mark.parametrize(
    "first", ["multiprocessing.pool", "concurrent.futures.process", "multiprocessing.spawn"]
)
def test_with_the_variable_any_order_of_imports_is_swapped(interpreter, first: str) -> None:
    interpreter(
        f"""
        import {first}
        from multiprocessing import get_context
        from concurrent.futures import ProcessPoolExecutor

        with get_context("fork").Pool(1) as pool, ProcessPoolExecutor(1) as executor:
            assert type(pool).__module__ == "shoal._dropin._pool"
            assert type(executor).__module__ == "shoal._dropin._executor"
        """,
        env={"SHOAL_RUN": "1"},
    ).check()


def test_uninstall_under_the_variable_holds_for_later_imports(interpreter) -> None:
    interpreter(
        """
        import shoal

        shoal.uninstall()
        import multiprocessing.pool

        with multiprocessing.get_context("fork").Pool(1) as pool:
            assert type(pool) is multiprocessing.pool.Pool
        """,
        env={"SHOAL_RUN": "1"},
    ).check()


def test_thread_pools_stay_the_standard_librarys(interpreter) -> None:
    interpreter("""
        import multiprocessing.dummy
        from multiprocessing.pool import Pool, ThreadPool

        import shoal

        shoal.install()
        for make in (ThreadPool, multiprocessing.dummy.Pool):
            with make(2) as pool:
                assert type(pool) is ThreadPool
                assert isinstance(pool, Pool) and not isinstance(pool, shoal.Pool)
                assert pool.map(abs, [-1, 2]) == [1, 2]
    """).check()


def test_subclasses_of_the_stock_classes_stay_the_standard_librarys(interpreter) -> None:
    interpreter("""
        import abc
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing.pool import Pool

        import shoal

        shoal.install()

        class Own(Pool):
            def __init__(self, *args, extra, **kwargs):
                super().__init__(*args, **kwargs)
                self.extra = extra

        class Mixin:
            def __new__(cls, *args, **kwargs):
                self = super().__new__(cls)
                self.seen = args, kwargs
                return self

        class Mixed(Pool, Mixin):
            pass

        class OwnExecutor(ProcessPoolExecutor):
            pass

        class Abstract(Pool, abc.ABC):
            @abc.abstractmethod
            def missing(self): ...

        class Concrete(Abstract):
            def missing(self): ...

        context = multiprocessing.get_context("fork")
        with Own(1, extra=3, context=context) as pool:
            assert type(pool) is Own and not isinstance(pool, shoal.Pool)
            assert pool.extra == 3 and pool.apply(abs, (-1,)) == 1
        with Mixed(1, context=context) as pool:
            assert pool.seen == ((1,), {"context": context})
        with Concrete(1, context=context) as pool:
            assert pool.apply(abs, (-1,)) == 1
        try:
            Abstract(1)
        except TypeError as error:
            assert "abstract" in str(error)
        else:
            raise AssertionError("an abstract class was instantiated")
        with OwnExecutor(1, mp_context=context) as executor:
            assert type(executor) is OwnExecutor and not isinstance(executor, shoal.Executor)
            assert executor.submit(abs, -1).result() == 1
    """).check()


def test_a_context_that_is_not_the_standard_librarys_stays_stock(interpreter) -> None:
    interpreter("""
        import multiprocessing
        import multiprocessing.context
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing.pool import Pool

        import shoal

        shoal.install()

        class OwnContext(multiprocessing.context.ForkContext):
            pass

        with Pool(1, context=OwnContext()) as pool:
            assert type(pool) is Pool
        with ProcessPoolExecutor(1, OwnContext()) as executor:
            assert type(executor) is ProcessPoolExecutor
        with Pool(1, context=multiprocessing) as pool:
            assert isinstance(pool, shoal.Pool)
    """).check()


def test_classes_are_still_found_by_name_and_have_their_signatures(interpreter) -> None:
    interpreter("""
        import inspect
        import pickle
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing.pool import Pool
        from unittest import mock

        before = inspect.signature(Pool), inspect.signature(ProcessPoolExecutor)
        import shoal

        shoal.install()
        assert (inspect.signature(Pool), inspect.signature(ProcessPoolExecutor)) == before
        for cls in (Pool, ProcessPoolExecutor):
            assert pickle.loads(pickle.dumps(cls)) is cls
        fake = mock.create_autospec(Pool)
        fake(3, maxtasksperchild=1).map(abs, [1])
        try:
            fake(nonsense=1)
        except TypeError:
            pass
        else:
            raise AssertionError("the specification lost its signature")
        with mock.patch("multiprocessing.pool.Pool") as patched:
            import multiprocessing
            multiprocessing.Pool(7)
            assert patched.call_args.args[0] == 7
        with mock.patch.object(Pool, "map", return_value="patched"), Pool(1) as pool:
            pass
    """).check()


def test_uninstall_gives_the_stock_classes_back(interpreter) -> None:
    interpreter("""
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing.pool import Pool

        import shoal

        context = multiprocessing.get_context("fork")
        for _ in range(2):
            shoal.install()
            with Pool(1) as pool:
                assert isinstance(pool, shoal.Pool)
            shoal.uninstall()
            with Pool(1, context=context) as pool:
                assert type(pool) is Pool
                assert pool.apply(abs, (-1,)) == 1
            with ProcessPoolExecutor(1, mp_context=context) as executor:
                assert type(executor) is ProcessPoolExecutor
    """).check()


def test_wrong_arguments_raise_what_the_stock_classes_raise(interpreter) -> None:
    program = """
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        if {install}:
            import shoal
            shoal.install()

        def attempt(make):
            try:
                make().__exit__(None, None, None)
            except Exception as error:
                print(type(error).__name__, error)
            else:
                print("accepted")

        context = multiprocessing.get_context("fork")
        attempt(lambda: context.Pool(0))
        attempt(lambda: context.Pool(-1))
        attempt(lambda: context.Pool(1, maxtasksperchild=0))
        attempt(lambda: context.Pool(1, maxtasksperchild=0.5))
        attempt(lambda: context.Pool(1, initializer=3))
        attempt(lambda: ProcessPoolExecutor(0))
        attempt(lambda: ProcessPoolExecutor(1, initializer=3))
        attempt(lambda: multiprocessing.get_context("nonsense").Pool(1))
    """
    stock = interpreter(program.format(install=False)).check()
    assert interpreter(program.format(install=True)).check() == stock
    assert "accepted" not in stock


def test_a_main_without_a_guard_is_no_fork_bomb(interpreter) -> None:
    """The standard library's child imports the main module again and must refuse; ours need not."""
    interpreter(
        """
        import multiprocessing

        with multiprocessing.get_context("spawn").Pool(1) as pool:
            pool.map(abs, [1])
        """,
        env={"SHOAL_RUN": "1"},
        timeout=60,
    ).check()


@pytest.mark.parametrize("installed", [False, True])
def test_the_namespace_has_all_names_of_the_standard_librarys(interpreter, installed) -> None:
    interpreter(
        """
        import multiprocessing as stock
        import sys

        import shoal
        import shoal.multiprocessing as multiprocessing

        assert multiprocessing.__all__ == stock.__all__
        for name in dir(stock):
            assert hasattr(multiprocessing, name), name
        assert multiprocessing.Process is stock.Process
        for name in ("multiprocessing.pool", "shoal._dropin._pool", "shoal._pool._pool"):
            assert name not in sys.modules, name
        if sys.argv[1] == "True":
            shoal.install()

        import shoal.multiprocessing.heap
        from shoal.multiprocessing import shared_memory
        from shoal.multiprocessing.dummy.connection import Pipe
        from shoal.multiprocessing.pool import RUN, Pool, ThreadPool
        import multiprocessing.heap

        assert shoal.multiprocessing.heap is multiprocessing.heap
        assert multiprocessing.heap.__spec__.name == "multiprocessing.heap"
        assert issubclass(Pool, shoal.Pool) and issubclass(Pool, stock.pool.Pool)
        assert ThreadPool is stock.pool.ThreadPool
        try:
            import shoal.multiprocessing.nonsense
        except ModuleNotFoundError as error:
            assert "shoal.multiprocessing.nonsense" in str(error)
        """,
        str(installed),
    ).check()


@pytest.mark.parametrize("method", START_METHODS)
def test_the_namespace_makes_shoals_pools_without_install(interpreter, method: str) -> None:
    interpreter(
        """
        import multiprocessing as stock
        import sys

        import shoal
        import shoal.multiprocessing as multiprocessing

        if __name__ == "__main__":
            context = multiprocessing.get_context(sys.argv[1])
            assert context.get_context() is context
            assert context.get_start_method() == sys.argv[1]
            assert type(context).__name__.lower() == sys.argv[1] + "context"
            with context.Pool(1) as pool:
                assert isinstance(pool, shoal.Pool), type(pool)
                assert pool.apply(abs, (-1,)) == 1
            multiprocessing.set_start_method(sys.argv[1], force=True)
            assert type(multiprocessing.get_context()) is type(context)
            with multiprocessing.Pool(1) as pool:
                assert isinstance(pool, shoal.Pool), type(pool)
            with stock.get_context("fork").Pool(1) as pool:
                assert not isinstance(pool, shoal.Pool), type(pool)
        """,
        method,
    ).check()
