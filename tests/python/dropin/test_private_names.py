# SPDX-License-Identifier: Apache-2.0
"""Private names of the standard library's pools that programs read: progress bars, back-pressure,
recipes that kill a pool.

Each test is such a recipe. It runs on the standard library, too, which shows that it says what is
true there.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import multiprocessing.pool as stock_pool
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import shoal.multiprocessing
import tasks
from pool_kinds import WATCHDOG, end
from shoal._dropin._executor import DropInExecutor

pytestmark = [
    WATCHDOG,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
]

METHODS = ["fork", "spawn", "forkserver"]
STATES: Any = stock_pool
Until = Callable[..., None]


@pytest.fixture(params=["stdlib-fork", *(f"shoal-{method}" for method in METHODS)])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def pool_of(kind: str, workers: int = 2, **options: Any) -> Iterator[Any]:
    owner, _, method = kind.partition("-")
    package: Any = multiprocessing if owner == "stdlib" else shoal.multiprocessing
    pool = package.get_context(method).Pool(workers, **options)
    try:
        yield pool
    finally:
        end(pool)


@contextmanager
def executor_of(kind: str, workers: int = 2, **options: Any) -> Iterator[Any]:
    owner, _, method = kind.partition("-")
    cls: Any = concurrent.futures.ProcessPoolExecutor if owner == "stdlib" else DropInExecutor
    executor = cls(workers, multiprocessing.get_context(method), **options)
    try:
        yield executor
    finally:
        Gates.open_all()  # a test that failed has left tasks waiting
        executor.shutdown(cancel_futures=True)


class Gates:
    """Tasks that end when their gate is opened."""

    last: Gates | None = None

    def __init__(self, folder: Path, count: int) -> None:
        self.paths = [str(folder / f"gate-{n}") for n in range(count)]
        Gates.last = self

    @classmethod
    def open_all(cls) -> None:
        if cls.last is not None:
            cls.last.open()
            cls.last = None

    def open(self, *numbers: int) -> None:
        for n in numbers or range(len(self.paths)):
            Path(self.paths[n]).touch()


def test_every_attribute_of_the_stock_objects_is_there(kind: str) -> None:
    """Whatever version of Python this is."""

    def objects(of: str) -> Iterator[tuple[str, set[str]]]:
        with pool_of(of) as pool:
            yield "pool", names(pool)
            for verb, arguments in (("apply_async", (abs, (1,))), ("map_async", (abs, [1]))):
                result = getattr(pool, verb)(*arguments)
                result.get()
                yield verb, names(result)
            for verb in ("imap", "imap_unordered"):
                results = getattr(pool, verb)(abs, [1])
                list(results)
                yield verb, names(results)
        with executor_of(of) as executor:
            executor.submit(abs, 1).result()
            yield "executor", names(executor)

    def names(thing: object) -> set[str]:
        return {name for name in known if hasattr(thing, name)} if known else set(vars(thing))

    known: set[str] = set()
    stock = dict(objects("stdlib-fork"))
    known = set().union(*stock.values())
    for what, found in objects(kind):
        assert not stock[what] - found, what


def test_number_left_counts_chunks_down_to_zero(
    kind: str, tmp_path: Path, wait_until: Until
) -> None:
    gates = Gates(tmp_path, 8)
    with pool_of(kind) as pool:
        result = pool.map_async(tasks.wait_for, gates.paths, chunksize=2)
        assert (result._number_left, result._chunksize, result.ready()) == (4, 2, False)
        for left, opened in ((3, (0, 1)), (2, (2, 3)), (0, (4, 5, 6, 7))):
            gates.open(*opened)
            wait_until(lambda left=left: result._number_left == left, f"{left} chunks left")
        wait_until(result.ready)
        assert result._number_left == 0 and result._success and result._event.is_set()


def test_default_chunk_size_is_the_standard_librarys(kind: str) -> None:
    with pool_of(kind) as pool:
        for count, chunksize in ((0, 0), (1, 1), (8, 1), (9, 2), (100, 13)):
            result = pool.map_async(abs, range(count))
            result.wait()
            assert (result._chunksize, result._number_left) == (chunksize, 0)


def test_value_of_a_map_shows_the_results_so_far(
    kind: str, tmp_path: Path, wait_until: Until
) -> None:
    gates = Gates(tmp_path, 4)
    with pool_of(kind) as pool:
        calls = [(path, n) for n, path in enumerate(gates.paths, 1)]
        result = pool.starmap_async(tasks.wait_and_return, calls, chunksize=1)
        assert result._value == [None] * 4
        gates.open(1)
        gates.open(0)
        wait_until(lambda: result._value[:2] == [1, 2])
        assert result._value == [1, 2, None, None]
        gates.open()
        assert result.get() == result._value == [1, 2, 3, 4]


def test_failed_map_is_no_success_before_it_has_ended(
    kind: str, tmp_path: Path, wait_until: Until
) -> None:
    gates = Gates(tmp_path, 1)
    with pool_of(kind) as pool:
        calls = [(tasks.divide, 1, 0), (tasks.wait_for, gates.paths[0])]
        result = pool.starmap_async(_call, calls, chunksize=1)
        wait_until(lambda: not result._success, "the error")
        assert not result.ready() and not result._event.is_set()
        assert isinstance(result._value, ZeroDivisionError)
        gates.open()
        assert result._event.wait(50) and not result.successful()


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def test_cache_holds_what_is_open_by_number(kind: str, tmp_path: Path, wait_until: Until) -> None:
    gates = Gates(tmp_path, 4)
    with pool_of(kind) as pool:
        assert not pool._cache and len(pool._cache) == 0
        calls = [pool.apply_async(tasks.wait_for, (path,)) for path in gates.paths[:2]]
        mapped = pool.map_async(tasks.wait_for, gates.paths[2:3], chunksize=1)
        stream = pool.imap(tasks.wait_for, gates.paths[3:])
        opened = [*calls, mapped, stream]
        assert len(pool._cache) == 4
        assert [pool._cache[result._job] for result in opened] == opened
        assert set(pool._cache) == {result._job for result in opened}
        assert set(pool._cache.values()) == set(opened)
        assert pool._cache[mapped._job]._number_left * mapped._chunksize == 1
        assert all(result._pool is pool for result in opened)
        gates.open(0)
        wait_until(lambda: len(pool._cache) == 3)
        gates.open()
        wait_until(lambda: not pool._cache, "an empty cache")
        assert all(result.ready() for result in opened[:3])
        assert all(result._pool is None for result in opened)


def test_loop_until_the_cache_is_empty_waits_for_results_that_nobody_has(
    kind: str, tmp_path: Path, wait_until: Until
) -> None:
    with pool_of(kind) as pool:
        pool.map_async(tasks.touch, [str(tmp_path / str(n)) for n in range(9)])
        for _ in pool.imap_unordered(tasks.touch, [str(tmp_path / str(n)) for n in range(9, 12)]):
            break
        pool.apply_async(tasks.touch, (str(tmp_path / "12"),))
        wait_until(lambda: not pool._cache)
        assert len(list(tmp_path.iterdir())) == 13


def test_back_pressure_by_the_task_queue(kind: str, wait_until: Until) -> None:
    with pool_of(kind) as pool:
        results = []
        for n in range(200):
            results.append(pool.apply_async(tasks.square, (n,)))
            wait_until(lambda: pool._taskqueue.qsize() <= 8)
        assert [result.get() for result in results] == [n * n for n in range(200)]
        wait_until(pool._taskqueue.empty)
        assert pool._taskqueue.qsize() == 0
        assert not pool._inqueue._reader.poll() and pool._inqueue.empty()
        wait_until(pool._outqueue.empty)


def test_iterators_tell_how_many_results_have_come(
    kind: str, tmp_path: Path, wait_until: Until
) -> None:
    for verb in ("imap", "imap_unordered"):
        folder = tmp_path / verb
        folder.mkdir()
        gates = Gates(folder, 4)
        with pool_of(kind) as pool:
            stream = getattr(pool, verb)(tasks.wait_for, gates.paths)
            wait_until(lambda stream=stream: stream._length == 4)
            assert (stream._index, len(stream._items)) == (0, 0)
            gates.open(0, 1)
            wait_until(lambda stream=stream: (stream._index, len(stream._items)) == (2, 2))
            next(stream)
            assert (stream._index, len(stream._items)) == (2, 1)
            gates.open()
            assert len(list(stream)) == 3 and stream._index == 4 and not stream._items


@pytest.mark.parametrize("method", METHODS)
def test_pool_killed_by_its_handlers_state_starts_no_more_workers(
    method: str, wait_until: Until
) -> None:
    """The standard library's pool may hang after that: its workers share a lock."""
    with pool_of(f"shoal-{method}") as pool:
        pool.map_async(tasks.sleep_for_ever_with, range(2))
        workers = list(pool._pool)
        assert all(worker.is_alive() for worker in workers)
        pool._state = STATES.TERMINATE
        pool._worker_handler._state = STATES.TERMINATE
        assert pool._worker_handler._state == pool._state == STATES.TERMINATE
        for worker in pool._pool:
            os.kill(worker.pid, signal.SIGKILL)
        wait_until(lambda: not any(worker.is_alive() for worker in pool._pool))
        wait_until(lambda: not any(worker.is_alive() for worker in workers))
        assert all(worker.exitcode is not None for worker in workers)
        with pytest.raises(ValueError, match="Pool not running"):
            pool.apply_async(abs, (1,))


def test_handlers_are_joined_after_close(kind: str) -> None:
    with pool_of(kind) as pool:
        handlers = [pool._worker_handler, pool._task_handler, pool._result_handler]
        assert all(handler.is_alive() and handler.daemon for handler in handlers)
        assert {handler._state for handler in handlers} == {STATES.RUN}
        result = pool.map_async(tasks.square, range(100))
        pool.close()
        assert pool._state == STATES.CLOSE
        for handler in handlers:
            handler.join()
        for worker in pool._pool:
            worker.join()
        assert not any(handler.is_alive() for handler in handlers)
        assert result.get() == [n * n for n in range(100)]


def test_the_finalizer_of_a_pool_ends_it(kind: str, wait_until: Until) -> None:
    with pool_of(kind) as pool:
        workers = list(pool._pool)
        assert pool._terminate.still_active()
        pool._terminate()
        wait_until(lambda: not any(worker.is_alive() for worker in workers))
        assert not pool._terminate.still_active() and not pool._worker_handler.is_alive()


def test_plain_attributes_of_a_pool(kind: str) -> None:
    with pool_of(kind, 2, initializer=tasks.remember, initargs=(1,), maxtasksperchild=7) as pool:
        assert (pool._processes, pool._maxtasksperchild, pool._initargs) == (2, 7, (1,))
        assert pool._initializer is tasks.remember and pool._wrap_exception
        assert pool._ctx.get_start_method() == kind.partition("-")[2]
        assert len({worker.pid for worker in pool._pool}) == len(pool._pool) == 2
        pool._repopulate_pool() if kind.startswith("shoal") else None
        pool._change_notifier.put(None)


def test_result_given_by_hand_is_the_result(kind: str, tmp_path: Path) -> None:
    gates = Gates(tmp_path, 2)
    with pool_of(kind) as pool:
        told: list[Any] = []
        good = pool.apply_async(tasks.wait_for, gates.paths[:1], callback=told.append)
        bad = pool.apply_async(tasks.wait_for, gates.paths[1:], error_callback=told.append)
        good._set(0, (True, "lost"))
        bad._set(0, (False, TimeoutError("lost")))
        assert good.get(0) == "lost" and good._success
        with pytest.raises(TimeoutError, match="lost"):
            bad.get(0)
        assert told[0] == "lost" and isinstance(told[1], TimeoutError)


def test_pending_work_items_are_the_futures_that_are_not_done(
    kind: str, tmp_path: Path, wait_until: Until
) -> None:
    gates = Gates(tmp_path, 8)
    with executor_of(kind) as executor:
        assert len(executor._pending_work_items) == executor._work_ids.qsize() == 0
        futures = [executor.submit(tasks.wait_for, path) for path in gates.paths]
        assert len(executor._pending_work_items) == 8 == executor._queue_count
        assert {item.future for item in executor._pending_work_items.values()} == set(futures)
        # Two run, up to three wait behind them, in the queue from which workers take.
        wait_until(lambda: 3 <= executor._work_ids.qsize() <= 5)
        gates.open(0, 1, 2)
        wait_until(lambda: len(executor._pending_work_items) == 5)
        gates.open()
        concurrent.futures.wait(futures)
        wait_until(lambda: not executor._pending_work_items)
        assert executor._work_ids.empty() and executor._call_queue.qsize() == 0


def test_pending_work_items_count_the_chunks_of_a_map(
    kind: str, tmp_path: Path, wait_until: Until
) -> None:
    gates = Gates(tmp_path, 6)
    with executor_of(kind) as executor:
        results = executor.map(tasks.wait_for, gates.paths, chunksize=2)
        assert len(executor._pending_work_items) == 3 == executor._queue_count
        gates.open()
        assert len(list(results)) == 6
        wait_until(lambda: len(executor._pending_work_items) == 0)


def test_futures_are_cancelled_by_the_pending_work_items(kind: str, tmp_path: Path) -> None:
    gates = Gates(tmp_path, 9)
    with executor_of(kind, 1) as executor:
        futures = [executor.submit(tasks.wait_for, path) for path in gates.paths]
        for item in list(executor._pending_work_items.values()):
            item.future.cancel()
        assert futures[-1].cancelled()
        gates.open()
        concurrent.futures.wait(futures)


def test_executor_tells_that_it_was_shut_down(kind: str) -> None:
    with executor_of(kind) as executor:
        assert not executor._shutdown_thread and executor._executor_manager_thread is None
        executor.submit(abs, -1).result()
        thread = executor._executor_manager_thread
        assert thread.is_alive() and not executor._broken and not executor._shutdown_thread
        assert executor._max_workers == 2
        executor.shutdown()
        assert executor._shutdown_thread and not thread.is_alive()
        assert executor._executor_manager_thread is executor._call_queue is None
        assert executor._result_queue is executor._processes is None


def test_workers_are_started_before_the_first_task(kind: str, wait_until: Until) -> None:
    with executor_of(kind) as executor:
        if executor._safe_to_dynamically_spawn_children:
            for _ in range(2):
                executor._adjust_process_count()
        elif hasattr(executor, "_launch_processes"):
            executor._launch_processes()
        executor._start_executor_manager_thread()
        wait_until(lambda: len(executor._processes) == 2)
        assert all(process.is_alive() for process in executor._processes.values())
        assert executor.submit(os.getpid).result() in executor._processes


def test_idle_workers_are_counted(tmp_path: Path, wait_until: Until) -> None:
    """By the semaphore that the standard library has for it; its number is exact here."""
    gates = Gates(tmp_path, 1)
    for method in METHODS:
        with executor_of(f"shoal-{method}", 1) as executor:
            assert executor._idle_worker_semaphore._value == 0
            executor.submit(abs, 1).result()
            wait_until(lambda e=executor: e._idle_worker_semaphore._value == 1)
            future = executor.submit(tasks.wait_for, gates.paths[0])
            wait_until(lambda e=executor: e._idle_worker_semaphore._value == 0)
            gates.open()
            future.result()
            os.unlink(gates.paths[0])
            Gates.last = None


def test_views_do_not_keep_a_pool(kind: str, wait_until: Until) -> None:
    if kind.startswith("stdlib"):
        pytest.skip("its handlers are threads of the pool")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pool = shoal.multiprocessing.get_context(kind.partition("-")[2]).Pool(1)
    handler, cache, queue = pool._worker_handler, pool._cache, pool._taskqueue
    del pool
    wait_until(lambda: not handler.is_alive())
    assert len(cache) == queue.qsize() == 0


def test_a_worker_of_a_process_with_many_files_can_be_waited_for(interpreter: Any) -> None:
    interpreter(
        """
        import os, resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (2000, 2000))
        files = [os.open("/dev/null", os.O_RDONLY) for _ in range(1100)]
        from shoal._dropin._stock_view import WorkerView
        view = WorkerView(os.getppid(), "parent")
        assert view.sentinel > 1024 and view.is_alive()
        view.join(0.01)
        child = os.fork()
        if child == 0:
            os._exit(0)
        view = WorkerView(child, "child")
        view.join()
        assert not view.is_alive()
        """
    ).check()
