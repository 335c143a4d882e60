# SPDX-License-Identifier: Apache-2.0
"""`Pool`: one suite on the standard library's pools and shoal's, under every start method; then
what is shoal's own.
"""

from __future__ import annotations

import functools
import gc
import itertools
import multiprocessing
import operator
import pickle
import queue
import threading
import time
import warnings

import pytest
import shoal
import tasks
from pool_kinds import ALL, SHOAL, STOCK, WATCHDOG, end, make_pool

pytestmark = [WATCHDOG, pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")]


@pytest.fixture(params=ALL, scope="module")
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def pool(kind):
    """One pool for all tests that leave it as it was."""
    pool = make_pool(kind)
    yield pool
    end(pool)


class Boom(Exception):
    """Raised by inputs and callbacks."""


class SaysItsLength:
    """An iterable whose len() may be wrong."""

    def __init__(self, says, gives):
        self.says, self.gives = says, gives

    def __len__(self):
        return self.says

    def __iter__(self):
        return iter(range(self.gives))


def numbers_then_boom(count):
    yield from range(count)
    raise Boom("the input fails")


# ---- Calls ---------------------------------------------------------------------------------------


def test_apply_gives_the_result(pool):
    assert pool.apply(tasks.square, (7,)) == 49


def test_apply_passes_positional_and_keyword_arguments(pool):
    assert pool.apply(tasks.everything, (1, "a"), {"k": [2]}) == ((1, "a"), {"k": [2]})


def test_apply_takes_arguments_as_any_iterable(pool):
    assert pool.apply(tasks.add, [1, 2]) == 3
    assert pool.apply(tasks.add, iter((1, 2))) == 3


def test_apply_by_keyword_names_of_the_standard_library(pool):
    assert pool.apply(func=tasks.add, args=(1,), kwds={"z": 4}) == 5


def test_apply_raises_the_tasks_exception_with_the_remote_traceback_as_cause(pool):
    with pytest.raises(ZeroDivisionError) as caught:
        pool.apply(tasks.divide, (1, 0))
    assert isinstance(caught.value.__cause__, multiprocessing.pool.RemoteTraceback)
    assert "return x / y" in str(caught.value.__cause__)


def test_apply_works_for_builtins_partials_methods_and_instances(pool):
    assert pool.apply(len, ([1, 2],)) == 2
    assert pool.apply(functools.partial(tasks.add, 1), (2,)) == 3
    assert pool.apply("a-b".split, ("-",)) == ["a", "b"]
    assert pool.apply(operator.itemgetter(1), ([3, 4],)) == 4
    assert pool.apply(tasks.Counter(), (0,)) == 1
    assert pool.apply(complex, (1, 2)) == 1 + 2j


def test_apply_async_is_ready_after_wait(pool):
    result = pool.apply_async(tasks.square, (5,))
    result.wait()
    assert result.ready()
    assert result.successful()
    assert result.get() == 25
    assert result.get(0) == 25


def test_failed_result_is_ready_and_not_successful(pool):
    result = pool.apply_async(tasks.divide, (1, 0))
    result.wait()
    assert result.ready()
    assert not result.successful()
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            result.get()


def test_get_and_wait_time_out_while_the_task_runs(pool, tmp_path):
    go = tmp_path / "go"
    result = pool.apply_async(tasks.wait_and_return, (str(go), 3))
    result.wait(0.01)
    assert not result.ready()
    with pytest.raises(multiprocessing.TimeoutError):
        result.get(timeout=0.01)
    with pytest.raises(multiprocessing.TimeoutError):
        result.get(0)
    with pytest.raises(ValueError, match="not ready"):
        result.successful()
    go.touch()
    assert result.get(timeout=60) == 3


def test_callback_gets_the_result_and_error_callback_the_exception(pool):
    told = threading.Semaphore(0)
    heard = []

    def hear(value):
        heard.append(value)
        told.release()

    pool.apply_async(tasks.square, (3,), callback=hear, error_callback=pytest.fail)
    told.acquire()
    assert heard == [9]
    result = pool.apply_async(tasks.divide, (1, 0), callback=pytest.fail, error_callback=hear)
    told.acquire()
    assert isinstance(heard[1], ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        result.get()


def test_many_results_in_any_order_of_asking(pool):
    results = [pool.apply_async(tasks.square, (i,)) for i in range(500)]
    assert [result.get() for result in reversed(results)] == [i * i for i in reversed(range(500))]


# ---- Maps ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 8, 9, 1000])
@pytest.mark.parametrize("chunksize", [None, 1, 2, 3, 1000, 10_000])
def test_map_gives_results_in_order_for_any_chunksize(pool, count, chunksize):
    assert pool.map(tasks.square, range(count), chunksize) == [i * i for i in range(count)]


@pytest.mark.parametrize("count", [0, 1, 5, 300])
@pytest.mark.parametrize("chunksize", [1, 2, 7, 1000])
def test_imap_gives_results_in_order_for_any_chunksize(pool, count, chunksize):
    assert list(pool.imap(tasks.square, range(count), chunksize)) == [i * i for i in range(count)]


@pytest.mark.parametrize("count", [0, 1, 5, 300])
@pytest.mark.parametrize("chunksize", [1, 2, 7, 1000])
def test_imap_unordered_gives_each_result_once(pool, count, chunksize):
    got = list(pool.imap_unordered(tasks.square, range(count), chunksize))
    assert sorted(got) == [i * i for i in range(count)]


def test_map_takes_generators_sets_dicts_and_strings(pool):
    assert pool.map(tasks.square, (i for i in range(5))) == [0, 1, 4, 9, 16]
    assert sorted(pool.map(tasks.square, {1, 2, 3})) == [1, 4, 9]
    assert pool.map(tasks.echo, {"a": 1, "b": 2}) == ["a", "b"]
    assert pool.map(ord, "abc") == [97, 98, 99]


def test_starmap_unpacks_its_items(pool):
    assert pool.starmap(tasks.add, [(1, 2), (3, 4), [5, 6]]) == [3, 7, 11]
    assert pool.starmap(tasks.add, ((i, i) for i in range(100)), 7) == [2 * i for i in range(100)]
    assert pool.starmap(tasks.add, []) == []
    assert pool.starmap(tasks.everything, ["ab", range(2)]) == [(("a", "b"), {}), ((0, 1), {})]


def test_starmap_of_items_that_are_not_iterable_raises_type_error(pool):
    with pytest.raises(TypeError):
        pool.starmap(tasks.add, [(1, 2), 3])


def test_starmap_async_and_map_async_give_lists(pool):
    assert pool.starmap_async(tasks.add, [(1, 2), (3, 4)]).get() == [3, 7]
    result = pool.map_async(tasks.square, range(50), chunksize=3)
    result.wait()
    assert result.ready()
    assert result.successful()
    assert result.get() == [i * i for i in range(50)]


def test_map_async_of_nothing_is_ready_with_an_empty_list(pool):
    result = pool.map_async(tasks.square, [])
    assert result.get(60) == []
    assert result.ready()
    assert result.successful()


def test_map_async_callback_is_called_once_with_the_whole_list(pool):
    told = threading.Event()
    heard = []

    def hear(values):
        heard.append(values)
        told.set()

    pool.map_async(tasks.square, range(20), 3, callback=hear).get()
    told.wait()
    assert heard == [[i * i for i in range(20)]]


def test_map_async_error_callback_is_called_with_the_exception(pool):
    told = threading.Event()
    heard = []

    def hear(error):
        heard.append(error)
        told.set()

    result = pool.map_async(tasks.fail_at_three, range(10), 1, pytest.fail, hear)
    told.wait()
    assert [type(error) for error in heard] == [ValueError]
    with pytest.raises(ValueError, match="three"):
        result.get()
    assert not result.successful()


def test_map_async_times_out_while_tasks_run(pool, tmp_path):
    go = tmp_path / "go"
    result = pool.map_async(tasks.wait_and_return, [str(go)] * 3, chunksize=1)
    with pytest.raises(multiprocessing.TimeoutError):
        result.get(0.01)
    assert not result.ready()
    go.touch()
    assert result.get(60) == [None] * 3


def test_map_raises_an_items_exception(pool):
    with pytest.raises(ValueError) as caught:
        pool.map(tasks.fail_at_three, range(10), chunksize=1)
    assert caught.value.args == ("three", 3)


def test_exception_in_a_chunk_gives_way_to_all_other_chunks(pool):
    with pytest.raises(ValueError):
        pool.map(tasks.fail_at_three, range(100), chunksize=10)
    assert pool.map(tasks.square, range(10)) == [i * i for i in range(10)]


def test_imap_goes_on_after_an_items_exception(pool):
    results = pool.imap(tasks.fail_at_three, range(6))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert list(results) == [4, 5]


def test_imap_unordered_gives_each_outcome_beside_exceptions(pool):
    results = pool.imap_unordered(tasks.fail_at_three, range(6))
    got, failed = [], 0
    while True:
        try:
            got.append(next(results))
        except StopIteration:
            break
        except ValueError:
            failed += 1
    assert (sorted(got), failed) == ([0, 1, 2, 4, 5], 1)


def test_exhausted_imap_stays_exhausted(pool):
    results = pool.imap(tasks.square, [1])
    assert next(results) == 1
    for _ in range(3):
        with pytest.raises(StopIteration):
            next(results)


@pytest.mark.parametrize("method", ["imap", "imap_unordered"])
def test_imap_next_times_out_and_can_be_asked_again(pool, tmp_path, method):
    go = tmp_path / "go"
    results = getattr(pool, method)(tasks.wait_and_return, [str(go)])
    with pytest.raises(multiprocessing.TimeoutError):
        results.next(timeout=0.01)
    with pytest.raises(multiprocessing.TimeoutError):
        results.next(0)
    go.touch()
    assert results.next(timeout=60) is None
    with pytest.raises(StopIteration):
        results.next(timeout=60)


@pytest.mark.parametrize("method", ["imap", "imap_unordered"])
@pytest.mark.parametrize("chunksize", [0, -1])
def test_imap_refuses_chunksizes_below_one(pool, method, chunksize):
    with pytest.raises(ValueError, match="Chunksize must be 1"):
        getattr(pool, method)(tasks.square, [1], chunksize)


@pytest.mark.parametrize("method", ["map", "starmap"])
def test_input_that_fails_before_anything_is_sent_raises_its_error(pool, method):
    with pytest.raises(Boom):
        getattr(pool, method)(tasks.square, numbers_then_boom(3))
    assert pool.apply(tasks.square, (2,)) == 4


def test_imap_gives_what_came_before_the_input_failed(pool):
    results = pool.imap(tasks.square, numbers_then_boom(3))
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    with pytest.raises(Boom):
        next(results)
    with pytest.raises(StopIteration):
        next(results)
    assert pool.apply(tasks.square, (2,)) == 4


def test_imap_unordered_gives_what_came_before_the_input_failed(pool):
    results = pool.imap_unordered(tasks.square, numbers_then_boom(3))
    got, failed = [], 0
    while True:
        try:
            got.append(next(results))
        except StopIteration:
            break
        except Boom:
            failed += 1
    assert (sorted(got), failed) == ([0, 1, 4], 1)


def test_imap_of_chunks_gives_the_inputs_failure(pool):
    with pytest.raises(Boom):
        list(pool.imap(tasks.square, numbers_then_boom(3), chunksize=2))
    assert pool.apply(tasks.square, (2,)) == 4


@pytest.mark.parametrize("method", ["map", "imap", "imap_unordered", "starmap", "map_async"])
def test_input_that_is_not_iterable_raises_type_error(pool, method):
    with pytest.raises(TypeError):
        result = getattr(pool, method)(tasks.square, 5)
        list(result)
    assert pool.apply(tasks.square, (2,)) == 4


def test_bound_methods_are_pickled_once_for_each_chunk(pool):
    """The pickling unit is the chunk: a counting object starts anew with each."""
    assert pool.map(tasks.Counter().count, range(8), 4) == [1, 2, 3, 4, 1, 2, 3, 4]
    assert pool.map(tasks.Counter(), range(4), 1) == [1, 1, 1, 1]


def test_items_of_a_chunk_that_are_one_object_stay_one_object(pool):
    one = [1]
    ids = pool.map(tasks.identity_of, [one] * 4, 4)
    assert len(set(ids)) == 1


def test_unhashable_and_equal_arguments_arrive_as_they_are(pool):
    values = [{}, [], {"a": [1]}, 1, 1.0, True, None, "", b"", -1, 2**70, float("inf"), ()]
    got = pool.map(tasks.echo, values)
    assert got == values
    assert list(map(type, got)) == list(map(type, values))


def countdown(results):
    """An input that waits for the results of what it gave before."""
    yield 5
    while (value := results.get()) > 1:
        yield value - 1


@pytest.mark.parametrize("method", ["imap", "imap_unordered"])
def test_an_input_may_wait_for_earlier_results(pool, method):
    results = queue.Queue()
    seen = []
    for value in getattr(pool, method)(tasks.echo, countdown(results)):
        seen.append(value)
        results.put(value)
    assert seen == [5, 4, 3, 2, 1]


def test_imap_next_times_out_while_the_input_waits(pool):
    results = queue.Queue()
    iterator = pool.imap(tasks.echo, countdown(results))
    assert next(iterator) == 5
    with pytest.raises(multiprocessing.TimeoutError):
        iterator.next(0.05)
    results.put(1)
    assert list(iterator) == []


# ---- Workers -------------------------------------------------------------------------------------


def test_initializer_runs_in_each_worker_before_its_first_task(kind):
    with make_pool(kind, 2, tasks.remember, (1, "two")) as pool:
        try:
            assert all(values == [1, "two"] for values in pool.map(tasks.remembered, range(20), 1))
        finally:
            end(pool)


def test_initializer_by_keyword_and_with_an_iterator_of_arguments(kind):
    pool = make_pool(kind, processes=1, initializer=tasks.remember, initargs=[3])
    assert pool.apply(tasks.remembered) == [3]
    end(pool)


def test_workers_are_daemons_with_names_of_pool_workers(pool):
    name, daemon = pool.apply(tasks.process_name)
    assert "PoolWorker-" in name
    assert daemon


def test_maxtasksperchild_replaces_each_worker_after_its_tasks(kind):
    pool = make_pool(kind, 1, maxtasksperchild=2)
    pids = [pool.apply(tasks.pid) for _ in range(6)]
    end(pool)
    assert [len(list(group)) for _, group in itertools.groupby(pids)] == [2, 2, 2]


def test_maxtasksperchild_counts_chunks_of_a_map(kind):
    pool = make_pool(kind, 1, maxtasksperchild=1)
    pids = pool.map(tasks.pid, range(9), 3)
    end(pool)
    assert [len(list(group)) for _, group in itertools.groupby(pids)] == [3, 3, 3]


def test_all_results_come_while_workers_are_replaced(kind):
    pool = make_pool(kind, 2, maxtasksperchild=5)
    assert pool.map(tasks.square, range(60), 1) == [i * i for i in range(60)]
    end(pool)


# ---- The end -------------------------------------------------------------------------------------


def test_close_and_join_run_what_was_submitted(kind):
    pool = make_pool(kind)
    results = [pool.apply_async(tasks.square, (i,)) for i in range(20)]
    many = pool.map_async(tasks.square, range(100))
    lazy = pool.imap(tasks.square, range(30))
    pool.close()
    pool.join()
    assert [result.get() for result in results] == [i * i for i in range(20)]
    assert many.get() == [i * i for i in range(100)]
    assert list(lazy) == [i * i for i in range(30)]


@pytest.mark.parametrize("ending", ["close", "terminate"])
@pytest.mark.parametrize(
    "method",
    [
        "apply",
        "apply_async",
        "map",
        "map_async",
        "imap",
        "imap_unordered",
        "starmap",
        "starmap_async",
    ],
)
def test_methods_of_an_ended_pool_raise_value_error(kind, ending, method):
    pool = make_pool(kind, 1)
    getattr(pool, ending)()
    with pytest.raises(ValueError, match="Pool not running"):
        getattr(pool, method)(tasks.square, [])
    with pytest.raises(ValueError):
        pool.__enter__()
    pool.join()


def test_closing_and_terminating_twice_is_allowed(kind):
    pool = make_pool(kind, 1)
    pool.close()
    pool.close()
    pool.terminate()
    pool.terminate()
    pool.join()
    pool.join()
    pool.close()


def test_join_of_a_running_pool_raises_value_error(pool):
    with pytest.raises(ValueError, match="still running"):
        pool.join()


def test_with_statement_gives_the_pool_and_terminates_it(kind):
    with make_pool(kind) as pool:
        assert pool.apply(tasks.square, (3,)) == 9
    with pytest.raises(ValueError, match="not running"):
        pool.apply(tasks.square, (3,))
    pool.join()


def test_with_statement_lets_exceptions_through(kind):
    with pytest.raises(Boom):
        with make_pool(kind) as pool:
            raise Boom
    pool.join()


def test_terminate_stops_tasks_that_would_run_for_ever(kind, tmp_path):
    pool = make_pool(kind)
    started = tmp_path / "started"
    pool.apply_async(tasks.announce_and_wait, (str(started), str(tmp_path / "never")))
    tasks.wait_for(str(started))
    end(pool)


def test_pools_cannot_be_pickled(pool):
    with pytest.raises(NotImplementedError, match="cannot be passed between processes or pickled"):
        pickle.dumps(pool)


def test_results_cannot_be_sent_to_workers(pool):
    result = pool.apply_async(tasks.square, (1,))
    with pytest.raises(Exception):
        pool.apply(tasks.echo, (result,))
    assert result.get() == 1


@pytest.mark.parametrize("processes", [0, -1])
def test_pools_of_no_processes_are_refused(kind, processes):
    with pytest.raises(ValueError, match="at least 1"):
        make_pool(kind, processes)


def test_initializers_that_cannot_be_called_are_refused(kind):
    with pytest.raises(TypeError, match="initializer must be"):
        make_pool(kind, 1, 5)


@pytest.mark.parametrize("value", [0, -1, 1.5])
def test_bad_maxtasksperchild_is_refused(kind, value):
    with pytest.raises(ValueError):
        make_pool(kind, 1, maxtasksperchild=value)


def test_repr_tells_the_state(kind):
    pool = make_pool(kind, 1)
    assert "Pool" in repr(pool)
    assert "RUN" in repr(pool).upper()
    end(pool)
    assert "running" not in repr(pool)


# ---- What is shoal's own -------------------------------------------------------------------------


@pytest.fixture(params=SHOAL)
def own_kind(request):
    return request.param


def test_collected_pool_warns_and_leaves_nothing(own_kind):
    pool = make_pool(own_kind)
    assert pool.apply(tasks.square, (2,)) == 4
    with pytest.warns(ResourceWarning, match="unclosed running"):
        del pool
        gc.collect()


def test_pool_dropped_with_work_in_flight_ends_with_its_work(own_kind, tmp_path):
    """As the standard library's, whose callbacks are called all the same."""
    pool = make_pool(own_kind)
    started, go_on, called = tmp_path / "started", tmp_path / "go on", threading.Event()
    pool.apply_async(
        tasks.announce_and_wait, (str(started), str(go_on)), callback=lambda _: called.set()
    )
    tasks.wait_for(str(started))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del pool
        gc.collect()
    go_on.touch()
    called.wait()


def test_terminated_results_raise_pool_closed_at_once(own_kind, tmp_path):
    pool = make_pool(own_kind)
    never = str(tmp_path / "never")
    call = pool.apply_async(tasks.wait_for, (never,))
    many = pool.map_async(tasks.wait_for, [never] * 5)
    lazy = pool.imap(tasks.wait_for, [never] * 5)
    pool.terminate()
    for ask in (call.get, many.get, lambda: next(lazy)):
        with pytest.raises(shoal.PoolClosed, match="terminated"):
            ask()
    assert call.ready() and many.ready()
    pool.join()


def test_thread_that_waits_hears_of_terminate(own_kind, tmp_path):
    pool = make_pool(own_kind)
    started = tmp_path / "started"
    result = pool.apply_async(tasks.announce_and_wait, (str(started), str(tmp_path / "never")))
    heard = []

    def wait():
        try:
            result.get()
        except shoal.PoolClosed as error:
            heard.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    tasks.wait_for(str(started))
    pool.terminate()
    thread.join()
    assert len(heard) == 1
    pool.join()


def test_map_raises_the_error_of_the_first_item_that_failed():
    with shoal.Pool(2) as pool:
        for _ in range(20):
            with pytest.raises(ValueError) as caught:
                pool.map(tasks.fail_from, range(50), chunksize=1)
            assert caught.value.args == (3,)


def test_callback_that_raises_harms_nothing_and_is_shown(own_kind, capsys):
    told = threading.Semaphore(0)

    def fail(_):
        told.release()
        raise Boom("in the callback")

    with make_pool(own_kind) as pool:
        result = pool.apply_async(tasks.square, (3,), callback=fail)
        many = pool.map_async(tasks.square, range(3), callback=fail)
        bad = pool.apply_async(tasks.divide, (1, 0), error_callback=fail)
        for _ in range(3):
            told.acquire()
        assert result.get() == 9
        assert many.get() == [0, 1, 4]
        with pytest.raises(ZeroDivisionError):
            bad.get()
        assert pool.apply(tasks.square, (4,)) == 16
    assert capsys.readouterr().err.count("Boom: in the callback") == 3


def test_callback_may_use_the_pool():
    with shoal.Pool(2) as pool:
        answers = []
        told = threading.Event()

        def again(value):
            if value > 10_000:
                told.set()
                return
            answers.append(pool.apply(tasks.square, (value,)))
            pool.apply_async(tasks.square, (value,), callback=again)

        pool.apply_async(tasks.square, (2,), callback=again)
        told.wait()
        assert answers == [16, 256, 65536]


def test_worker_pids_are_the_processes_that_run_tasks(own_kind, wait_until):
    with make_pool(own_kind) as pool:
        wait_until(lambda: len(pool.worker_pids()) == 2)
        pids = set(pool.worker_pids())
        assert set(pool.map(tasks.pid, range(50), 1)) <= pids
    assert pool.worker_pids() == []


def test_statistics_count_tasks_and_bytes(own_kind):
    with make_pool(own_kind) as pool:
        pool.map(tasks.square, range(100), 1)
        pool.apply(tasks.echo, (b"x" * 100_000,))
        with pytest.raises(ZeroDivisionError):
            pool.apply(tasks.divide, (1, 0))
        while len(pool.worker_pids()) < 2:
            time.sleep(0.01)  # one may have done it all while the other began
        facts = pool.statistics()
    assert facts["workers"] == 2
    assert facts["tasks"] == 102
    assert facts["errors"] == 1
    assert facts["bytes_in"] >= 100_000
    assert facts["bytes_out"] >= 100_000
    assert facts["start"] == own_kind.partition("-")[2].replace("clean", "zygote")
    assert len(facts["per_worker"]) == 2
    assert facts["memory"]
    assert facts["template"]


def test_statistics_of_an_ended_pool_still_answer():
    pool = shoal.Pool(1)
    pool.apply(tasks.square, (1,))
    end(pool)
    assert pool.statistics()["workers"] == 0


def test_bad_options_are_refused_with_their_values():
    with pytest.raises(ValueError, match="threads"):
        shoal.Pool(1, start="threads")
    with pytest.raises(TypeError, match="2.5"):
        shoal.Pool(2.5)
    with pytest.raises(TypeError):
        shoal.Pool(True)
    with pytest.raises(TypeError):
        shoal.Pool("2")
    with pytest.raises(ValueError):
        shoal.Pool(10_000)


def test_functions_that_cannot_be_called_are_refused(own_kind):
    with make_pool(own_kind, 1) as pool:
        for call in (pool.apply, pool.map, pool.imap, pool.starmap, pool.apply_async):
            with pytest.raises(TypeError):
                result = call(5, [(1,)])
                list(result) if hasattr(result, "__next__") else result.get()
        assert pool.apply(tasks.square, (2,)) == 4


def test_default_number_of_workers_is_the_usable_cpus():
    with shoal.Pool() as pool:
        assert pool._engine.workers == shoal.cpu_count()


def test_stock_kinds_are_run_too():
    """The suite compares: it must not be that only one side is tested."""
    assert set(STOCK) < set(ALL)


@pytest.mark.parametrize("chunksize", [None, 1, 3])
def test_an_input_shorter_or_longer_than_its_length_gives_what_there_is(chunksize):
    with shoal.Pool(2) as pool:
        assert pool.map(tasks.echo, SaysItsLength(5, 3), chunksize) == [0, 1, 2]
        assert pool.map(tasks.echo, SaysItsLength(3, 5), chunksize) == [0, 1, 2]
        assert pool.map(tasks.as_list, SaysItsLength(4, 2), chunksize) == [[0], [1]]
        assert list(pool.imap(tasks.echo, SaysItsLength(3, 5))) == [0, 1, 2, 3, 4]


def test_an_input_that_waits_ends_with_its_pool():
    results = queue.Queue()
    with shoal.Pool(2) as pool:
        iterator = pool.imap(tasks.echo, countdown(results))
        assert next(iterator) == 5
    with pytest.raises(shoal.PoolClosed):
        next(iterator)
    results.put(1)


def test_a_base_exception_of_an_input_that_is_read_by_a_thread_reaches_the_caller():
    def inputs():
        yield 1
        raise SystemExit(3)

    with shoal.Pool(2) as pool:
        iterator = pool.imap(tasks.echo, inputs())
        assert next(iterator) == 1
        with pytest.raises(SystemExit):
            next(iterator)
        assert list(iterator) == []


@pytest.mark.parametrize("chunksize", [1, 3])
def test_ctrl_c_in_a_sized_input_reaches_the_caller_and_the_pool_goes_on(chunksize):
    class Interrupted(SaysItsLength):
        def __iter__(self):
            yield from ([i] for i in range(self.gives))
            raise KeyboardInterrupt

    with shoal.Pool(2) as pool:
        with pytest.raises(KeyboardInterrupt):
            pool.map(tasks.echo, Interrupted(8, 4), chunksize)
        assert pool.map(tasks.echo, [[1], [2]], chunksize) == [[1], [2]]
