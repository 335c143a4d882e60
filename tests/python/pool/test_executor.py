# SPDX-License-Identifier: Apache-2.0
"""`Executor`: one suite on the standard library's executors and shoal's, under every start method;
then shoal's own.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.process
import gc
import itertools
import sys
import threading
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION

import pytest
import shoal
import tasks
from pool_kinds import ALL, SHOAL, STOCK, WATCHDOG, make_executor

pytestmark = [WATCHDOG, pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")]


@pytest.fixture(params=ALL, scope="module")
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def executor(kind):
    with make_executor(kind) as executor:
        # The standard library starts its workers with the first task.
        list(executor.map(tasks.pid, range(20)))
        yield executor


@pytest.fixture(params=SHOAL)
def own_kind(request):
    return request.param


class Boom(Exception):
    """Raised by inputs and callbacks."""


# ---- submit --------------------------------------------------------------------------------------


def test_submit_gives_a_future_with_the_result(executor):
    future = executor.submit(tasks.square, 7)
    assert isinstance(future, concurrent.futures.Future)
    assert future.result() == 49
    assert future.result(timeout=0) == 49
    assert future.exception() is None
    assert future.done()
    assert not future.running()
    assert not future.cancelled()


def test_all_keywords_belong_to_the_function(executor):
    future = executor.submit(tasks.everything, 1, timeout=2, retries=3, fn=4, self=5)
    assert future.result() == ((1,), {"timeout": 2, "retries": 3, "fn": 4, "self": 5})


def test_failed_task_gives_its_exception(executor):
    future = executor.submit(tasks.divide, 1, 0)
    with pytest.raises(ZeroDivisionError) as caught:
        future.result()
    assert future.exception() is caught.value
    assert "return x / y" in str(caught.value.__cause__)
    with pytest.raises(ZeroDivisionError):
        future.result()


def test_result_and_exception_time_out(executor, tmp_path):
    go = tmp_path / "go"
    future = executor.submit(tasks.wait_and_return, str(go), 5)
    with pytest.raises(concurrent.futures.TimeoutError):
        future.result(timeout=0.01)
    with pytest.raises(concurrent.futures.TimeoutError):
        future.exception(timeout=0)
    assert not future.done()
    go.touch()
    assert future.result(timeout=60) == 5


def test_running_is_true_while_a_worker_runs_it(executor, tmp_path, wait_until):
    started, go = tmp_path / "started", tmp_path / "go"
    future = executor.submit(tasks.announce_and_wait, str(started), str(go))
    wait_until(started.exists)
    wait_until(future.running)
    go.touch()
    future.result()
    assert not future.running()


def test_done_callbacks_are_called_once_with_the_future(executor, tmp_path):
    go = tmp_path / "go"
    heard = []
    told = threading.Semaphore(0)

    def hear(future):
        heard.append(future)
        told.release()

    future = executor.submit(tasks.wait_and_return, str(go))
    future.add_done_callback(hear)
    future.add_done_callback(hear)
    go.touch()
    told.acquire()
    told.acquire()
    future.add_done_callback(hear)  # done already: here and now
    assert heard == [future] * 3


def test_done_callback_that_raises_is_logged_and_others_are_called(executor, caplog):
    told = threading.Event()

    def fail(_):
        raise Boom("callback")

    future = executor.submit(tasks.square, 2)
    future.add_done_callback(fail)
    future.add_done_callback(lambda _: told.set())
    told.wait()
    assert future.result() == 4
    assert any("exception calling callback" in record.message for record in caplog.records)


def test_what_cannot_be_pickled_is_the_futures_error(executor):
    future = executor.submit(tasks.echo, tasks.FailsToPickle())
    with pytest.raises(RuntimeError, match="will not be pickled"):
        future.result()
    assert executor.submit(tasks.square, 3).result() == 9


def test_many_futures_at_once(executor):
    futures = [executor.submit(tasks.square, i) for i in range(1000)]
    assert [future.result() for future in futures] == [i * i for i in range(1000)]


# ---- wait, as_completed, asyncio -----------------------------------------------------------------


def test_as_completed_gives_each_future_once(executor):
    futures = {executor.submit(tasks.square, i) for i in range(50)}
    done = list(concurrent.futures.as_completed(futures))
    assert len(done) == 50
    assert set(done) == futures


def test_as_completed_gives_what_is_done_before_what_is_not(executor, tmp_path):
    go = tmp_path / "go"
    slow = executor.submit(tasks.wait_and_return, str(go))
    quick = executor.submit(tasks.square, 2)
    futures = concurrent.futures.as_completed([slow, quick])
    assert next(futures) is quick
    go.touch()
    assert next(futures) is slow


def test_as_completed_times_out(executor, tmp_path):
    go = tmp_path / "go"
    slow = executor.submit(tasks.wait_and_return, str(go))
    with pytest.raises(concurrent.futures.TimeoutError):
        list(concurrent.futures.as_completed([slow], timeout=0.01))
    go.touch()
    slow.result()


def test_as_completed_with_a_future_given_twice_and_done_already(executor):
    future = executor.submit(tasks.square, 2)
    future.result()
    assert list(concurrent.futures.as_completed([future, future])) == [future]


def test_wait_for_all_first_and_first_exception(executor, tmp_path):
    go = tmp_path / "go"
    slow = executor.submit(tasks.wait_and_return, str(go))
    quick = executor.submit(tasks.square, 2)
    done, not_done = concurrent.futures.wait([slow, quick], return_when=FIRST_COMPLETED)
    assert (done, not_done) == ({quick}, {slow})
    bad = executor.submit(tasks.divide, 1, 0)
    done, not_done = concurrent.futures.wait([slow, bad], return_when=FIRST_EXCEPTION)
    assert (done, not_done) == ({bad}, {slow})
    assert concurrent.futures.wait([slow], timeout=0).not_done == {slow}
    go.touch()
    assert concurrent.futures.wait([slow, quick, bad], return_when=ALL_COMPLETED).not_done == set()


def test_asyncio_can_wait_for_futures_and_run_in_the_executor(executor):
    async def main():
        loop = asyncio.get_running_loop()
        wrapped = asyncio.wrap_future(executor.submit(tasks.square, 3))
        in_executor = loop.run_in_executor(executor, tasks.square, 4)
        many = await asyncio.gather(
            *(loop.run_in_executor(executor, tasks.square, i) for i in range(50))
        )
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(executor, tasks.divide, 1, 0)
        return await wrapped, await in_executor, many

    assert asyncio.run(main()) == (9, 16, [i * i for i in range(50)])


def test_asyncio_wait_for_times_out(executor, tmp_path):
    go = tmp_path / "go"

    async def main():
        future = executor.submit(tasks.wait_and_return, str(go))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(future)), 0.01)
        go.touch()
        return await asyncio.wrap_future(future)

    assert asyncio.run(main()) is None


# ---- map -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunksize", [1, 2, 7, 1000])
def test_map_gives_results_in_order(executor, chunksize):
    assert list(executor.map(tasks.square, range(100), chunksize=chunksize)) == [
        i * i for i in range(100)
    ]


def test_map_zips_its_iterables_to_the_shortest(executor):
    assert list(executor.map(tasks.add, [1, 2, 3], (10, 20))) == [11, 22]
    assert list(executor.map(tasks.add, range(5), itertools.count())) == [0, 2, 4, 6, 8]
    assert list(executor.map(tasks.add, [1, 2], [10, 20], chunksize=5)) == [11, 22]


def test_map_of_nothing_is_empty(executor):
    assert list(executor.map(tasks.square, [])) == []
    assert list(executor.map(tasks.add, [], [1])) == []
    assert list(executor.map(tasks.square)) == []


def test_map_raises_the_items_exception_and_ends(executor):
    results = executor.map(tasks.fail_at_three, range(6))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_map_times_out_and_leaves_the_executor_usable(executor, tmp_path):
    go = tmp_path / "go"
    results = executor.map(tasks.wait_and_return, [str(go)], timeout=0.01)
    with pytest.raises(concurrent.futures.TimeoutError):
        next(results)
    go.touch()
    assert executor.submit(tasks.square, 3).result() == 9


def test_map_with_a_timeout_that_does_not_pass(executor):
    assert list(executor.map(tasks.square, range(5), timeout=60)) == [0, 1, 4, 9, 16]


def test_map_refuses_chunksizes_below_one(executor):
    with pytest.raises(ValueError, match="chunksize must be >= 1"):
        executor.map(tasks.square, [1], chunksize=0)


def test_map_starts_before_it_is_iterated(executor, tmp_path, wait_until):
    path = tmp_path / "ran"
    results = executor.map(tasks.touch, [str(path)])
    wait_until(path.exists)
    assert list(results) == [None]


def test_dropped_map_leaves_the_executor_usable(executor):
    results = executor.map(tasks.square, range(1000))
    assert next(results) == 0
    del results
    gc.collect()
    assert executor.submit(tasks.square, 3).result() == 9


def test_map_whose_input_raises_gives_its_error(executor):
    def numbers():
        yield 1
        raise Boom

    with pytest.raises(Boom):
        list(executor.map(tasks.square, numbers()))
    assert executor.submit(tasks.square, 3).result() == 9


# ---- The end -------------------------------------------------------------------------------------


def test_shutdown_waits_for_what_was_submitted(kind):
    executor = make_executor(kind)
    futures = [executor.submit(tasks.square, i) for i in range(50)]
    executor.shutdown()
    assert all(future.done() for future in futures)
    assert [future.result() for future in futures] == [i * i for i in range(50)]


def test_executor_refuses_work_after_shutdown(kind):
    executor = make_executor(kind, 1)
    executor.submit(tasks.square, 1).result()
    executor.shutdown()
    executor.shutdown()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(tasks.square, 2)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.map(tasks.square, [2])


def test_shutdown_without_waiting_still_completes(kind):
    executor = make_executor(kind)
    futures = [executor.submit(tasks.square, i) for i in range(20)]
    executor.shutdown(wait=False)
    assert [future.result() for future in futures] == [i * i for i in range(20)]
    executor.shutdown(wait=True)


def test_a_callback_that_shuts_its_executor_down_cannot_wait(kind):
    executor = make_executor(kind)
    outcome = []

    def shut_down(_):
        try:
            executor.shutdown(wait=True)
        except RuntimeError as error:
            outcome.append(str(error))  # the error itself would keep the executor

    futures = [executor.submit(tasks.square, i) for i in range(20)]
    futures[0].add_done_callback(shut_down)
    assert [future.result(30) for future in futures] == [i * i for i in range(20)]
    executor.shutdown(wait=True)
    assert len(outcome) == 1
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(tasks.square, 2)


def test_shutdown_can_cancel_what_has_not_begun(kind, tmp_path, wait_until):
    executor = make_executor(kind, 1)
    started, go = tmp_path / "started", tmp_path / "go"
    running = executor.submit(tasks.announce_and_wait, str(started), str(go))
    wait_until(started.exists)
    queued = [executor.submit(tasks.square, i) for i in range(20)]
    executor.shutdown(wait=False, cancel_futures=True)
    go.touch()
    assert running.result() > 0
    if kind not in STOCK:  # whose second shutdown may trip over its own first one
        concurrent.futures.wait(queued)  # 3.10's own does not hear of futures cancelled so
        executor.shutdown(wait=True)
    wait_until(lambda: all(future.done() for future in queued))
    # The standard library may have handed one or two to its call queue already.
    assert sum(future.cancelled() for future in queued) >= 17


def test_with_statement_waits_for_all(kind):
    with make_executor(kind) as executor:
        futures = [executor.submit(tasks.square, i) for i in range(20)]
    assert [future.result(0) for future in futures] == [i * i for i in range(20)]
    with pytest.raises(RuntimeError):
        executor.submit(tasks.square, 1)


def test_initializer_runs_before_the_first_task(kind):
    with make_executor(kind, 2, initializer=tasks.remember, initargs=("x", 1)) as executor:
        assert all(values == ["x", 1] for values in executor.map(tasks.remembered, range(20)))


@pytest.mark.parametrize("value", [0, -2])
def test_executors_of_no_workers_are_refused(kind, value):
    with pytest.raises(ValueError, match="max_workers must be greater than 0"):
        make_executor(kind, value)


def test_workers_run_what_was_registered_for_their_end(kind, tmp_path):
    with make_executor(kind, 1, initializer=tasks.touch_at_end, initargs=(tmp_path,)) as executor:
        pid = executor.submit(tasks.pid).result()
    left = {path.name for path in tmp_path.iterdir()}
    assert f"finalizer-{pid}" in left
    # A forked process has run atexit's functions only from 3.13 on.
    assert (f"atexit-{pid}" in left) == (kind.endswith("spawn") or sys.version_info >= (3, 13))


def test_initializers_that_cannot_be_called_are_refused(kind):
    with pytest.raises(TypeError, match="initializer must be"):
        make_executor(kind, 1, initializer=5)


def test_executor_dropped_with_work_completes_it(kind):
    executor = make_executor(kind)
    futures = [executor.submit(tasks.square, i) for i in range(10)]
    del executor
    gc.collect()
    assert [future.result() for future in futures] == [i * i for i in range(10)]


# ---- Cancelling ----------------------------------------------------------------------------------


def test_queued_future_can_be_cancelled(kind, tmp_path, wait_until):
    with make_executor(kind, 1) as executor:
        started, go, ran = tmp_path / "started", tmp_path / "go", tmp_path / "ran"
        running = executor.submit(tasks.announce_and_wait, str(started), str(go))
        wait_until(started.exists)
        ahead = [executor.submit(tasks.square, i) for i in range(5)]  # fill the stock call queue
        queued = executor.submit(tasks.touch, str(ran))
        heard = []
        queued.add_done_callback(heard.append)
        assert queued.cancel()
        assert queued.cancel()
        assert queued.cancelled()
        assert queued.done()
        assert not queued.running()
        go.touch()
        assert running.result() > 0
        assert [future.result() for future in ahead] == [i * i for i in range(5)]
        with pytest.raises(concurrent.futures.CancelledError):
            queued.result()
        with pytest.raises(concurrent.futures.CancelledError):
            queued.exception()
    assert heard == [queued]
    assert not ran.exists()


def test_finished_future_cannot_be_cancelled(executor):
    future = executor.submit(tasks.square, 2)
    future.result()
    assert not future.cancel()
    assert not future.cancelled()
    assert future.result() == 4


# ---- What is shoal's own -------------------------------------------------------------------------


@pytest.mark.parametrize("buffersize", [1, 2, 10])
def test_map_with_a_buffersize_reads_no_further_ahead(own_kind, buffersize):
    taken = 0

    def numbers():
        nonlocal taken
        for i in itertools.count():
            taken = i + 1
            yield i

    with make_executor(own_kind) as executor:
        results = executor.map(tasks.square, numbers(), buffersize=buffersize)
        for i in range(30):
            assert next(results) == i * i
            assert taken <= i + 1 + buffersize
        results.close()


def test_buffersize_is_checked():
    with shoal.Executor(1) as executor:
        with pytest.raises(TypeError):
            executor.map(tasks.square, [1], buffersize="2")
        with pytest.raises(ValueError):
            executor.map(tasks.square, [1], buffersize=0)
        assert list(executor.map(tasks.square, [], buffersize=3)) == []
        assert list(executor.map(tasks.square, range(5), buffersize=100)) == [0, 1, 4, 9, 16]
        assert list(executor.map(tasks.add, range(5), range(5), buffersize=2)) == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("method", ["terminate_workers", "kill_workers"])
def test_workers_can_be_stopped_at_once(own_kind, tmp_path, wait_until, method):
    executor = make_executor(own_kind)
    started = tmp_path / "started"
    running = executor.submit(tasks.announce_and_wait, str(started), str(tmp_path / "never"))
    queued = [executor.submit(tasks.wait_for, str(tmp_path / "never")) for _ in range(5)]
    wait_until(started.exists)
    getattr(executor, method)()
    for future in [running, *queued]:
        with pytest.raises((shoal.PoolClosed, concurrent.futures.process.BrokenProcessPool)):
            future.result()
    with pytest.raises(RuntimeError):
        executor.submit(tasks.square, 1)
    getattr(executor, method)()
    executor.shutdown()


@pytest.mark.skipif(sys.version_info < (3, 14), reason="new in the standard library of 3.14")
@pytest.mark.parametrize("method", ["terminate_workers", "kill_workers"])
def test_stock_workers_can_be_stopped_at_once_too(tmp_path, wait_until, method):
    executor = make_executor("stdlib-spawn")
    started = tmp_path / "started"
    running = executor.submit(tasks.announce_and_wait, str(started), str(tmp_path / "never"))
    wait_until(started.exists)
    getattr(executor, method)()
    with pytest.raises(concurrent.futures.process.BrokenProcessPool):
        running.result()


def test_running_future_can_be_cancelled(own_kind, tmp_path, wait_until):
    with make_executor(own_kind, 1) as executor:
        started = tmp_path / "started"
        future = executor.submit(tasks.announce_and_wait, str(started), str(tmp_path / "never"))
        wait_until(started.exists)
        assert future.cancel()
        assert future.cancelled()
        with pytest.raises(concurrent.futures.CancelledError):
            future.result()
        assert executor.submit(tasks.square, 3).result() == 9


def test_cancelling_reaches_as_completed_wait_and_asyncio(own_kind, tmp_path, wait_until):
    with make_executor(own_kind, 2) as executor:
        never = str(tmp_path / "never")

        def started(name):
            path = tmp_path / name
            future = executor.submit(tasks.announce_and_wait, str(path), never)
            wait_until(path.exists)
            return future

        first = started("first")
        futures = concurrent.futures.as_completed([first])
        threading.Timer(0.01, first.cancel).start()
        assert next(futures) is first
        second = started("second")
        threading.Timer(0.01, second.cancel).start()
        assert concurrent.futures.wait([second]).done == {second}

        async def main(third):
            task = asyncio.ensure_future(asyncio.wrap_future(third))
            asyncio.get_running_loop().call_soon(task.cancel)
            with pytest.raises(asyncio.CancelledError):
                await task

        third = started("third")
        asyncio.run(main(third))
        wait_until(third.cancelled)


def test_one_executor_serves_tasks_after_many_cancels(own_kind):
    with make_executor(own_kind) as executor:
        futures = [executor.submit(tasks.square, i) for i in range(300)]
        cancelled = [future for future in futures if future.cancel()]
        for i, future in enumerate(futures):
            if future in cancelled:
                assert future.cancelled()
            else:
                assert future.result() == i * i
        assert list(executor.map(tasks.square, range(10))) == [i * i for i in range(10)]


def test_max_tasks_per_child_replaces_workers(own_kind):
    with make_executor(own_kind, 1, max_tasks_per_child=2) as executor:
        pids = [executor.submit(tasks.pid).result() for _ in range(6)]
    assert [len(list(group)) for _, group in itertools.groupby(pids)] == [2, 2, 2]


def test_worker_pids_and_statistics(own_kind):
    with make_executor(own_kind) as executor:
        used = set(executor.map(tasks.pid, range(30)))
        assert used <= set(executor.worker_pids())
        assert executor.statistics()["tasks"] == 30
    assert executor.worker_pids() == []


def test_repr_of_an_executor_tells_its_state():
    executor = shoal.Executor(1)
    assert repr(executor) == "<Executor state=running workers=1 start=zygote>"
    executor.shutdown()
    assert repr(executor) == "<Executor state=shut down workers=1 start=zygote>"


def test_repr_of_a_future_tells_its_state(tmp_path):
    with shoal.Executor(1) as executor:
        go = tmp_path / "go"
        future = executor.submit(tasks.wait_and_return, str(go), 3)
        assert "pending" in repr(future) or "running" in repr(future)
        go.touch()
        future.result()
        assert "returned int" in repr(future)
        bad = executor.submit(tasks.divide, 1, 0)
        bad.exception()
        assert "raised ZeroDivisionError" in repr(bad)


def test_stock_kinds_are_run_too():
    assert set(STOCK) < set(ALL)
