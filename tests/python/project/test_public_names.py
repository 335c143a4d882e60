# SPDX-License-Identifier: Apache-2.0
"""What users see of the package: its names, where they say they are, what methods return."""

from __future__ import annotations

import inspect
import multiprocessing.pool
import pickle
import types

import pytest
import shoal


def _by_pickle(thing: object) -> bool:
    return pickle.loads(pickle.dumps(thing)) is thing


def _named(name: str) -> object:
    return getattr(shoal, name)


@pytest.fixture(scope="module")
def pool():
    with shoal.Pool(1) as pool:
        yield pool


@pytest.mark.parametrize("name", shoal.__all__)
def test_a_public_name_says_that_it_is_public(name: str) -> None:
    thing = getattr(shoal, name)
    assert thing.__module__ in ("shoal", "shoal.errors")
    assert thing.__qualname__ == thing.__name__ == name
    assert repr(thing).startswith((f"<class '{thing.__module__}.{name}'", f"<function {name} at"))


@pytest.mark.parametrize("name", shoal.__all__)
def test_a_public_name_is_pickled_by_reference_in_both_directions(pool, name: str) -> None:
    thing = getattr(shoal, name)
    assert _by_pickle(thing)
    assert pool.apply(_by_pickle, (thing,))
    assert pool.apply(_named, (name,)) is thing
    assert b"._" not in pickle.dumps(thing), "a private module is in the pickle"


@pytest.mark.parametrize("name", shoal.__all__)
def test_the_source_of_public_functions_and_methods_is_found(name: str) -> None:
    thing = getattr(shoal, name)
    methods = vars(thing).values() if isinstance(thing, type) else [thing]
    for method in methods:
        if isinstance(method, types.FunctionType):
            assert f"def {method.__name__}" in inspect.getsource(method)


def test_a_fresh_process_loads_what_a_pickle_names(interpreter) -> None:
    pickles = [pickle.dumps(getattr(shoal, name)) for name in shoal.__all__]
    interpreter(
        f"""
        import pickle
        names = [pickle.loads(each).__name__ for each in {pickles!r}]
        assert names == {list(shoal.__all__)!r}
        """
    ).check()


def test_pickles_that_name_the_private_modules_are_loaded() -> None:
    assert pickle.loads(b"cshoal._pool._pool\nPool\n.") is shoal.Pool
    assert pickle.loads(b"cshoal._shared._sync\nLock\n.") is shoal.Lock


def test_what_methods_of_a_pool_return_is_public(pool) -> None:
    assert type(pool.apply_async(abs, (-1,))) is shoal.AsyncResult
    assert type(pool.map_async(abs, [-1])) is shoal.MapResult
    assert type(pool.starmap_async(pow, [(1, 2)])) is shoal.MapResult
    assert type(pool.imap(abs, [-1])) is shoal.IMapIterator
    assert type(pool.imap_unordered(abs, [-1])) is shoal.IMapIterator


def test_what_methods_of_an_executor_return_is_public() -> None:
    with shoal.Executor(1) as executor:
        assert type(executor.submit(abs, -1)) is shoal.Future
        assert type(executor.options(retries=1)) is shoal.ExecutorOptions
        assert repr(executor).startswith("<Executor state=running workers=1")


def test_the_drop_ins_classes_stay_private() -> None:
    from shoal._dropin import _pool, _results

    for kind in (_pool.DropInPool, _results.ApplyResult, _results.IMapIterator):
        assert kind.__module__.startswith("shoal._dropin.")


def test_results_are_the_standard_librarys_if_its_pool_was_imported_before(pool) -> None:
    for result in (pool.apply_async(abs, (-1,)), pool.map_async(abs, [-1])):
        assert isinstance(result, multiprocessing.pool.AsyncResult)


def test_results_are_the_standard_librarys_if_its_pool_is_imported_after(interpreter) -> None:
    interpreter(
        """
        import sys
        import shoal

        with shoal.Pool(1) as pool:
            results = pool.apply_async(abs, (-1,)), pool.map_async(abs, [-1])
            assert "multiprocessing.pool" not in sys.modules
            from multiprocessing.pool import AsyncResult
            assert all(isinstance(result, AsyncResult) for result in results)
            assert [result.get() for result in results] == [1, [1]]
        """
    ).check()


def test_installed_or_not_is_public(interpreter) -> None:
    interpreter(
        """
        import shoal
        assert not shoal.is_installed()
        shoal.install()
        assert shoal.is_installed()
        shoal.uninstall()
        assert not shoal.is_installed()
        """
    ).check()
