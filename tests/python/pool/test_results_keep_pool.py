# SPDX-License-Identifier: Apache-2.0
"""Results keep their pool: what a dropped pool or executor has open is completed, then it ends.

As in the standard library since 3.8. The fixture `nothing_is_left` proves the second half: no
process and no thread stays after each test.
"""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import shoal
import shoal.multiprocessing
import tasks
from pool_kinds import WATCHDOG

pytestmark = [WATCHDOG, pytest.mark.filterwarnings("ignore::ResourceWarning")]

NATIVE = ["zygote", "fork", "spawn"]
METHODS = ["fork", "spawn", "forkserver"]
KINDS = [f"native-{start}" for start in NATIVE] + [f"dropin-{method}" for method in METHODS]
WANT = [x * x for x in range(8)]


def pool_of(kind: str, workers: int = 2, **options: Any) -> Any:
    owner, _, method = kind.partition("-")
    if owner == "native":
        return shoal.Pool(workers, start=method, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a collector runs: fork warns
        return shoal.multiprocessing.get_context(method).Pool(workers, **options)


def executor_of(kind: str, workers: int = 2) -> Any:
    owner, _, method = kind.partition("-")
    if owner == "native":
        return shoal.Executor(workers, start=method)
    from shoal._dropin._executor import DropInExecutor

    return DropInExecutor(workers, multiprocessing.get_context(method))


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def dropped(kind: str, verb: str, items: Any = range(8)) -> Any:
    """The result of a pool that nobody else has."""
    return getattr(pool_of(kind), verb)(tasks.square, items)


@pytest.mark.parametrize("verb", ["imap", "imap_unordered"])
def test_iterator_keeps_the_pool_that_it_came_from(kind: str, verb: str) -> None:
    results = dropped(kind, verb)
    gc.collect()
    assert sorted(results) == WANT


def test_iterator_over_an_input_without_length_keeps_its_pool(kind: str) -> None:
    assert list(dropped(kind, "imap", (x for x in range(8)))) == WANT


def test_map_result_keeps_its_pool(kind: str) -> None:
    assert dropped(kind, "map_async").get(50) == WANT


def test_starmap_result_keeps_its_pool(kind: str) -> None:
    assert pool_of(kind).starmap_async(divmod, [(7, 2), (9, 4)]).get(50) == [(3, 1), (2, 1)]


def test_results_of_single_calls_keep_their_pool(kind: str) -> None:
    def calls() -> list[Any]:
        pool = pool_of(kind)
        return [pool.apply_async(tasks.square, (x,)) for x in range(8)]

    assert [result.get(50) for result in calls()] == WANT


def test_results_of_a_closed_pool_that_is_dropped_are_completed(kind: str) -> None:
    pool = pool_of(kind)
    results = pool.imap(tasks.square, range(8))
    pool.close()
    del pool
    assert list(results) == WANT


def test_results_stay_readable_when_their_pool_has_ended(kind: str, wait_until: Any) -> None:
    pool = pool_of(kind)
    engine = pool._engine
    call, mapped, stream = (
        pool.apply_async(abs, (-1,)),
        pool.map_async(tasks.square, range(8)),
        pool.imap(tasks.square, range(8)),
    )
    del pool
    wait_until(lambda: engine._agent.ended, "the end of the pool")
    assert call.ready() and call.successful() and not call.cancel()
    assert (call.get(), mapped.get(), list(stream)) == (1, WANT, WANT)


def test_errors_of_tasks_come_from_a_dropped_pool(kind: str) -> None:
    result = pool_of(kind).apply_async(tasks.divide, (1, 0))
    with pytest.raises(ZeroDivisionError):
        result.get(50)


def test_what_nobody_waits_for_runs_to_its_end(kind: str, tmp_path: Any, wait_until: Any) -> None:
    """The result and its pool are gone at once; the standard library completes the task, too."""
    path = str(tmp_path / "done")
    pool_of(kind).apply_async(tasks.touch, (path,))
    wait_until(lambda: os.path.exists(path), "the task")


def test_callback_that_refers_to_the_pool_runs_and_does_not_keep_it(kind: str) -> None:
    told, done = [], threading.Event()

    def start() -> None:
        pool = pool_of(kind)

        def callback(value: int) -> None:
            told.append((value, pool._engine.closed))
            done.set()

        pool.apply_async(tasks.square, (3,), callback=callback)

    start()
    assert done.wait(50) and told == [(9, False)]


def test_callback_may_send_the_next_task_to_a_pool_that_only_it_refers_to(kind: str) -> None:
    told, done = [], threading.Event()

    def start() -> None:
        pool = pool_of(kind)

        def callback(value: int) -> None:
            told.append(value)
            if value < 100:
                pool.apply_async(tasks.square, (value,), callback=callback)
            else:
                done.set()

        pool.apply_async(tasks.square, (2,), callback=callback)

    start()
    assert done.wait(50) and told == [4, 16, 256]


def test_dropped_pool_ends_without_the_garbage_collector(kind: str, wait_until: Any) -> None:
    gc.collect()
    gc.disable()
    try:
        pool = pool_of(kind)
        engine = pool._engine
        result = pool.map_async(tasks.square, range(8))
        del pool
        assert result.get(50) == WANT
        wait_until(lambda: engine._agent.ended, "the end of the pool")
    finally:
        gc.enable()


def test_dropped_pool_warns_once_whether_or_not_something_is_open(kind: str) -> None:
    for items in ([], range(8)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ResourceWarning)
            result = pool_of(kind).map_async(tasks.square, items)
            gc.collect()
        texts = [str(w.message) for w in caught if w.category is ResourceWarning]
        assert len(texts) == 1 and texts[0].startswith("unclosed running ")
        result.get(50)


def test_pool_ends_when_the_warning_is_an_error(
    kind: str, monkeypatch: pytest.MonkeyPatch, wait_until: Any
) -> None:
    raised: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: raised.append(told.exc_type))
    pool = pool_of(kind)
    engine = pool._engine
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        del pool
    assert raised == [ResourceWarning]
    wait_until(lambda: engine._agent.ended, "the end of the pool")


@pytest.mark.parametrize("start", NATIVE)
def test_endless_input_ends_with_its_iterator(start: str, wait_until: Any) -> None:
    def counted() -> Iterator[int]:
        yield from itertools.count()

    for source in (counted(), itertools.count()):
        pool = shoal.Pool(2, start=start)
        engine = pool._engine
        results = pool.imap(tasks.square, source)
        del pool
        assert list(itertools.islice(results, 8)) == WANT
        del results
        wait_until(lambda engine=engine: engine._agent.ended, "the end of the pool")


@pytest.mark.parametrize("method", METHODS)
def test_dropin_reads_an_input_to_its_end_without_its_iterator(
    method: str, tmp_path: Any, wait_until: Any
) -> None:
    """More items than are read ahead: the standard library runs all of them."""
    path = tmp_path / "done"
    pool = pool_of(f"dropin-{method}")
    pool.imap(tasks.square, range(70_000), chunksize=1000)
    engine = pool._engine
    last = pool.imap(tasks.touch, (str(path) for _ in range(1)))
    del pool, last
    wait_until(path.exists, "the last task")
    wait_until(lambda: engine._agent.ended, "the end of the pool")


def test_fork_while_a_dropped_pool_completes_its_results(kind: str, tmp_path: Any) -> None:
    path = str(tmp_path / "go")
    result = pool_of(kind).apply_async(tasks.wait_and_return, (path, "late"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        with pytest.raises(shoal.ForkedPool):
            result.get()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    tasks.touch(path)
    assert result.get(50) == "late"


def test_dropped_executor_completes_its_futures(kind: str) -> None:
    def futures() -> list[Any]:
        executor = executor_of(kind)
        return [executor.submit(tasks.square, x) for x in range(8)]

    assert [future.result(50) for future in futures()] == WANT


@pytest.mark.parametrize("unsized", [False, True])
def test_iterator_of_a_dropped_executor_has_all_results(kind: str, unsized: bool) -> None:
    def lazy() -> Any:
        return executor_of(kind).map(
            tasks.square, (x for x in range(8)) if unsized else list(range(8))
        )

    results = lazy()
    gc.collect()
    assert list(results) == WANT


PROGRAM = """
    import sys, time, warnings
    from concurrent.futures import ProcessPoolExecutor
    import multiprocessing as mp
    warnings.simplefilter("ignore")

    def slow(path):
        time.sleep(0.3)
        open(path, "w").close()

    def drop_executor(path):
        ProcessPoolExecutor(1, mp.get_context(sys.argv[2])).submit(slow, path)

    def shut_down(path):
        executor = ProcessPoolExecutor(1, mp.get_context(sys.argv[2]))
        executor.submit(slow, path)
        executor.shutdown(wait=False)

    def drop_pool(path):
        return mp.get_context(sys.argv[2]).Pool(1).map_async(time.sleep, [1000])

    if __name__ == "__main__":
        kept = globals()[sys.argv[1]](sys.argv[3])
"""


@pytest.mark.parametrize("what", ["drop_executor", "shut_down"])
@pytest.mark.parametrize("method", METHODS)
def test_exit_waits_for_the_futures_of_an_executor_that_is_gone(
    interpreter: Any, tmp_path: Any, method: str, what: str
) -> None:
    path = tmp_path / "done"
    interpreter(PROGRAM, what, method, str(path), env={"SHOAL_RUN": "1"}).check()
    assert path.exists()


@pytest.mark.parametrize("method", METHODS)
def test_exit_does_not_wait_for_the_results_of_a_pool_that_is_gone(
    interpreter: Any, tmp_path: Any, method: str
) -> None:
    interpreter(PROGRAM, "drop_pool", method, str(tmp_path), env={"SHOAL_RUN": "1"}).check()
