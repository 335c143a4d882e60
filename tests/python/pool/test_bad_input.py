# SPDX-License-Identifier: Apache-2.0
"""What goes wrong in a task, its arguments or its result ends as that task's error at once, and the
pool goes on.
"""

from __future__ import annotations

import collections
import concurrent.futures
import multiprocessing
import os
import pickle
import signal
import threading

import pytest
import shoal
import tasks
from pool_kinds import SHOAL, WATCHDOG, make_pool
from shoal._dropin._executor import DropInExecutor

pytestmark = WATCHDOG


@pytest.fixture(params=SHOAL, scope="module")
def pool(request):
    """One pool for all: whatever a test does, the next finds it whole."""
    with make_pool(request.param) as pool:
        yield pool


@pytest.fixture(autouse=True)
def pool_goes_on(request):
    yield
    if "pool" in request.fixturenames:
        pool = request.getfixturevalue("pool")
        assert pool.map(tasks.square, range(10), 1) == [i * i for i in range(10)]


def outcomes(results):
    """Values and exceptions of an imap, as they come."""
    found = []
    while True:
        try:
            found.append(next(results))
        except StopIteration:
            return found
        except BaseException as error:
            found.append(error)


# ---- Arguments -----------------------------------------------------------------------------------


def test_arguments_that_cannot_be_pickled_raise_in_the_caller(pool):
    for call in (pool.apply, pool.apply_async):
        with pytest.raises(RuntimeError, match="will not be pickled"):
            call(tasks.echo, (tasks.FailsToPickle(),))
    with pytest.raises(TypeError, match="pickle"):
        pool.apply(tasks.echo, (threading.Lock(),))


@pytest.mark.parametrize("chunksize", [1, 3])
def test_map_raises_for_an_item_that_cannot_be_pickled(pool, chunksize):
    with pytest.raises(RuntimeError, match="will not be pickled"):
        pool.map(tasks.echo, [1, tasks.FailsToPickle(), 3], chunksize)
    with pytest.raises(RuntimeError, match="will not be pickled"):
        pool.map_async(tasks.echo, [1, tasks.FailsToPickle(), 3], chunksize).get()


def test_imap_gives_the_other_items_beside_one_that_cannot_be_pickled(pool):
    first, bad, last = outcomes(pool.imap(tasks.echo, [1, tasks.FailsToPickle(), 3]))
    assert (first, last) == (1, 3)
    assert isinstance(bad, RuntimeError)
    found = outcomes(pool.imap_unordered(tasks.echo, [1, tasks.FailsToPickle(), 3]))
    assert sorted(x for x in found if isinstance(x, int)) == [1, 3]
    assert len(found) == 3


def test_arguments_that_cannot_be_unpickled_are_the_tasks_error(pool):
    with pytest.raises(pickle.UnpicklingError, match="refused"):
        pool.apply(tasks.echo, (tasks.FailsToUnpickle(),))
    found = outcomes(pool.imap(tasks.echo, [1, tasks.FailsToUnpickle(), 3]))
    assert found[::2] == [1, 3]
    assert isinstance(found[1], pickle.UnpicklingError)


def test_arguments_that_exit_when_unpickled_are_the_tasks_error(pool):
    with pytest.raises(SystemExit):
        pool.apply(tasks.echo, (tasks.ExitsOnUnpickle(),))


def test_function_that_cannot_be_pickled_raises_in_the_caller(pool):
    lock = threading.Lock()
    with pytest.raises(Exception, match="pickle"):
        pool.apply(lock.acquire)
    with pytest.raises(Exception, match="pickle"):
        pool.map(lock.acquire, [1])


def test_arguments_too_deep_to_pickle_raise(pool):
    with pytest.raises(RecursionError):
        pool.apply(tasks.echo, (tasks.deep_list(100_000),))


def test_cyclic_arguments_and_results_come_back_as_cycles(pool):
    cycle = [1]
    cycle.append(cycle)
    result = pool.apply(tasks.echo, (cycle,))
    assert result[1] is result
    table = {}
    table["self"] = table
    result = pool.apply(tasks.echo, (table,))
    assert result["self"] is result


def _named(**keywords):
    return keywords


def test_keywords_are_any_mapping_and_nothing_else(pool):
    assert pool.apply(_named, (), collections.UserDict(a=1)) == {"a": 1}
    for function in (_named, len):
        with pytest.raises(TypeError, match=r"after \*\* must be a mapping, not int"):
            pool.apply(function, (), 5)


class StreamLoader:
    """As loaders of streams are: a `__len__` that raises, and items all the same."""

    def __len__(self):
        raise TypeError("a stream has no length")

    def __iter__(self):
        return iter(range(4))


def test_an_input_whose_length_cannot_be_told_is_read(pool):
    assert list(pool.imap(tasks.square, StreamLoader())) == [0, 1, 4, 9]
    assert sorted(pool.imap_unordered(tasks.square, StreamLoader(), 2)) == [0, 1, 4, 9]


@pytest.mark.parametrize("kind", [shoal.Executor, DropInExecutor])
def test_an_executor_reads_an_input_whose_length_cannot_be_told(kind):
    with kind(1) as executor:
        assert list(executor.map(tasks.square, StreamLoader())) == [0, 1, 4, 9]
        assert list(executor.map(pow, StreamLoader(), [2, 2], chunksize=2)) == [0, 1]


# ---- Results -------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["file", "fails to pickle", "generator"])
def test_results_that_cannot_be_pickled_are_the_tasks_error(pool, what):
    with pytest.raises(multiprocessing.pool.MaybeEncodingError) as told:
        pool.apply(tasks.return_, (what,))
    shown = {"file": "TextIOWrapper", "fails to pickle": "FailsToPickle", "generator": "<genexpr>"}
    assert shown[what] in told.value.value
    found = outcomes(pool.imap(tasks.return_, [what, what]))
    assert [type(error) for error in found] == [multiprocessing.pool.MaybeEncodingError] * 2


@pytest.mark.parametrize("chunksize", [1, 3])
def test_one_result_that_cannot_be_pickled_leaves_the_others_of_its_chunk(pool, chunksize):
    found = outcomes(pool.imap(_every_second_is_a_lock, range(6), chunksize))
    assert [isinstance(x, int) for x in found] == [True, False] * 3


def _every_second_is_a_lock(x):
    return threading.Lock() if x % 2 else x


def test_results_that_cannot_be_unpickled_are_the_tasks_error(pool):
    with pytest.raises(pickle.UnpicklingError, match="refused"):
        pool.apply(tasks.return_, ("fails to unpickle",))
    with pytest.raises(pickle.UnpicklingError, match="refused"):
        pool.map(tasks.return_, ["fails to unpickle"] * 2)


def test_results_that_exit_when_unpickled_do_not_end_this_process(pool):
    with pytest.raises((SystemExit, shoal.ShoalError)):
        pool.apply(tasks.return_, ("exits on unpickle",))


def test_results_too_deep_to_pickle_are_the_tasks_error(pool):
    with pytest.raises((multiprocessing.pool.MaybeEncodingError, RecursionError)):
        pool.apply(tasks.deep_list, (100_000,))


# ---- Exceptions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (tasks.system_exit, SystemExit),
        (tasks.keyboard_interrupt, KeyboardInterrupt),
        (tasks.generator_exit, GeneratorExit),
        (tasks.custom_base, tasks.CustomBase),
        (tasks.recurse, RecursionError),
    ],
)
def test_every_exception_of_a_task_is_raised_by_its_result(pool, function, kind):
    pids = pool.worker_pids()
    with pytest.raises(kind):
        pool.apply(function)
    with pytest.raises(kind):
        pool.apply_async(function).get()
    assert pool.worker_pids() == pids, "a worker ended because of an exception"


def test_system_exit_keeps_its_code(pool):
    for code in (3, 0, None, "text"):
        with pytest.raises(SystemExit) as caught:
            pool.apply(tasks.system_exit, (code,))
        assert caught.value.code == code


def test_base_exceptions_in_maps_leave_the_other_items(pool):
    found = outcomes(pool.imap(_exit_at_two, range(5)))
    assert [x for x in found if isinstance(x, int)] == [0, 1, 3, 4]
    assert isinstance(found[2], SystemExit)
    with pytest.raises(SystemExit):
        pool.map(_exit_at_two, range(5), 1)


def _exit_at_two(x):
    if x == 2:
        raise SystemExit(x)
    return x


def test_exceptions_keep_arguments_attributes_and_notes(pool):
    with pytest.raises(LookupError) as caught:
        pool.apply(_raise_with_extras)
    assert caught.value.args == ("a", 1)
    assert caught.value.extra == [1, 2]
    if hasattr(caught.value, "add_note"):
        assert caught.value.__notes__ == ["a note"]


def _raise_with_extras():
    error = LookupError("a", 1)
    error.extra = [1, 2]
    if hasattr(error, "add_note"):
        error.add_note("a note")
    raise error


def test_causes_of_exceptions_are_shown(pool):
    with pytest.raises(ValueError) as caught:
        pool.apply(_raise_from)
    assert "KeyError: 'inner'" in str(caught.value.__cause__)


def _raise_from():
    try:
        raise KeyError("inner")
    except KeyError as error:
        raise ValueError("outer") from error


def test_exceptions_with_odd_constructors_say_what_they_were(pool):
    for function, text in (
        (tasks.raise_odd, "code 5: odd"),
        (tasks.raise_two_arguments, "first second"),
    ):
        with pytest.raises((tasks.OddError, tasks.TwoArguments, shoal.RemoteError)) as caught:
            pool.apply(function)
        assert text in str(caught.value)
        assert caught.value.__cause__ is not None


def test_exceptions_that_cannot_be_pickled_say_what_they_were(pool):
    with pytest.raises((ValueError, shoal.RemoteError)) as caught:
        pool.apply(tasks.raise_unpicklable)
    assert "with a lock" in str(caught.value)
    with pytest.raises((ValueError, shoal.RemoteError)) as caught:
        pool.apply(tasks.raise_with_unpicklable_argument)
    assert "with a file" in str(caught.value)


def test_classes_of_exceptions_can_be_made_in_the_task(pool):
    with pytest.raises(Exception, match="of the task"):
        pool.apply(_raise_local)


def _raise_local():
    class Local(Exception):
        """Not to be found by name."""

    raise Local("of the task")


def test_exceptions_as_results_are_results(pool):
    result = pool.apply(tasks.echo, (ValueError("a value"),))
    assert isinstance(result, ValueError)
    assert result.args == ("a value",)


def test_stop_iteration_of_a_task_is_its_error(pool):
    with pytest.raises(StopIteration):
        pool.apply(_stop)
    with pytest.raises((StopIteration, RuntimeError)):
        pool.map(_stop, [1])


def _stop(_=None):
    raise StopIteration("of the task")


def test_timeout_errors_of_a_task_are_told_from_waiting(pool):
    with pytest.raises(TimeoutError) as caught:
        pool.apply(_time_out)
    assert caught.value.args == ("of the task",)
    assert not isinstance(caught.value, shoal.TaskTimeout)


def _time_out():
    raise TimeoutError("of the task")


# ---- Deaths --------------------------------------------------------------------------------------


def test_a_deaths_error_shows_the_call_as_it_would_be_written(pool):
    odd = tasks.Plain(3)
    shown = []
    for args, kwargs in [((9, "x"), {}), ((9, odd), {"k": [1, odd]}), ((9, "y" * 99), {"z": None})]:
        with pytest.raises(shoal.WorkerDied) as caught:
            pool.apply(tasks.die_of_anything, args, kwargs)
        shown.append(caught.value.arguments)
    assert shown[:2] == ["9, 'x'", "9, Plain(...), k=[1, Plain(...)]"]
    assert shown[2].startswith("9, 'yyyyyyy") and shown[2].endswith("...', z=None")
    assert f"die_of_anything({shown[1]})" in str(caught.value).replace(shown[2], shown[1])


def test_a_deaths_error_shows_the_item_of_a_chunk_that_was_lost(pool):
    with pytest.raises(shoal.WorkerDied) as caught:
        pool.map(tasks.die_of_negative, [[1], [2], [-9], [4]], chunksize=4)
    assert caught.value.arguments == "[-9]"
    with pytest.raises(shoal.WorkerDied) as caught:
        pool.starmap(tasks.die_of_anything, [(9, [1])], chunksize=4)
    assert caught.value.arguments == "9, [1]"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGABRT])
def test_killed_worker_fails_only_its_task(pool, number):
    others = [pool.apply_async(tasks.square, (i,)) for i in range(20)]
    with pytest.raises(shoal.WorkerDied) as caught:
        pool.apply(tasks.die, (int(number),))
    assert caught.value.signal == number
    assert caught.value.exitcode is None
    assert caught.value.pid not in (None, os.getpid())
    assert caught.value.task.endswith("tasks.die")
    assert str(int(number)) in caught.value.arguments
    assert caught.value.peak_memory > 1 << 20
    assert not caught.value.memory_limit_hit
    assert isinstance(caught.value, concurrent.futures.process.BrokenProcessPool)
    assert [other.get() for other in others] == [i * i for i in range(20)]


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_worker_that_exits_fails_only_its_task(pool, code):
    with pytest.raises(shoal.WorkerDied) as caught:
        pool.apply(tasks.leave, (code,))
    assert caught.value.exitcode == code
    assert caught.value.signal is None


def test_death_in_a_map_loses_one_item(pool):
    found = outcomes(pool.imap(_die_at_five, range(12)))
    assert [x for x in found if isinstance(x, int)] == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert isinstance(found[5], shoal.WorkerDied)
    with pytest.raises(shoal.WorkerDied):
        pool.map(_die_at_five, range(12))


@pytest.mark.parametrize("chunksize", [3, 12])
def test_death_in_a_chunk_loses_one_item(pool, chunksize):
    items = [[i] for i in range(12)]  # not atoms: they travel as chunks
    found = outcomes(pool.imap(_die_at_list_of_five, items, chunksize))
    assert [x[0] for x in found if isinstance(x, list)] == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert isinstance(found[5], shoal.WorkerDied)


def _die_at_five(x):
    return tasks.die_at(x, 5)


def _die_at_list_of_five(x):
    tasks.die_at(x[0], 5)
    return x


def test_idle_worker_killed_is_replaced(pool, wait_until):
    before = set(pool.worker_pids())
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    assert pool.map(tasks.square, range(20), 1) == [i * i for i in range(20)]
    wait_until(lambda: len(set(pool.worker_pids()) - before) == 2)


def test_retries_run_lost_tasks_again(pool, tmp_path):
    path = str(tmp_path / "tries")
    assert pool.apply(_die_twice, (path,), retries=2) == 3
    path = str(tmp_path / "tries of a map")
    assert pool.map(_die_twice, [path], retries=2) == [3]
    path = str(tmp_path / "too many")
    with pytest.raises(shoal.WorkerDied):
        pool.apply(_die_twice, (path,), retries=1)


def _die_twice(path):
    tasks.append(path, "try")
    with open(path) as file:
        tries = len(file.readlines())
    if tries < 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return tries


def test_retried_task_gets_its_arguments_as_they_were(pool, tmp_path):
    numpy = pytest.importorskip("numpy")
    values = numpy.arange(100_000.0)
    marker = str(tmp_path / "marker")
    assert pool.apply(_spoil_and_die_once, (values, [1, 2], marker), retries=1) == (
        values.sum(),
        [1, 2],
    )


def _spoil_and_die_once(values, items, marker):
    answer = values.sum(), list(items)
    if not os.path.exists(marker):
        tasks.touch(marker)
        values[:] = -1
        items.clear()
        os.kill(os.getpid(), signal.SIGKILL)
    return answer


def test_exceptions_are_not_retried(pool, tmp_path):
    path = tmp_path / "tries"
    with pytest.raises(ZeroDivisionError):
        pool.apply(_note_and_fail, (str(path),), retries=5)
    assert path.read_text() == "try\n"


def _note_and_fail(path):
    tasks.append(path, "try")
    return 1 / 0


@pytest.mark.parametrize("value", [-1, 31, 1.5, "2", None])
def test_bad_retries_are_refused(pool, value):
    with pytest.raises(ValueError, match="retries"):
        pool.map(tasks.square, [1], retries=value)


# ---- Initializers --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SHOAL)
def test_failing_initializer_ends_with_one_clear_error(kind, capfd):
    with make_pool(kind, 2, tasks.fail_to_start, ("no database",)) as pool:
        with pytest.raises(shoal.InitializerFailed, match="no database") as caught:
            pool.apply(tasks.square, (1,))
        assert isinstance(caught.value.__cause__, RuntimeError)
        with pytest.raises(shoal.InitializerFailed, match="no database"):
            pool.map(tasks.square, range(10))
        with pytest.raises(shoal.InitializerFailed):
            pool.apply_async(tasks.square, (1,)).get()


@pytest.mark.parametrize("kind", SHOAL)
def test_failing_initializer_is_attempted_a_bounded_number_of_times(kind, tmp_path):
    path = tmp_path / "attempts"
    with make_pool(kind, 2, _note_and_fail, (str(path),)) as pool:
        with pytest.raises(shoal.InitializerFailed):
            pool.map(tasks.square, range(10))
        attempts = len(path.read_text().splitlines())
    assert 1 <= attempts <= 20


@pytest.mark.parametrize("kind", SHOAL)
def test_initializer_that_exits_or_dies_ends_with_one_clear_error(kind):
    with make_pool(kind, 1, tasks.leave, (3,)) as pool:
        with pytest.raises(shoal.InitializerFailed):
            pool.apply(tasks.square, (1,))
    with make_pool(kind, 1, tasks.system_exit) as pool:
        with pytest.raises(shoal.InitializerFailed):
            pool.apply(tasks.square, (1,))


def test_initializer_that_fails_once_is_tried_again(tmp_path):
    with shoal.Pool(1, _fail_the_first_time, (str(tmp_path / "marker"),)) as pool:
        assert pool.apply(tasks.square, (3,)) == 9


def _fail_the_first_time(marker):
    if not os.path.exists(marker):
        tasks.touch(marker)
        raise RuntimeError("the first time")


def test_executor_with_failing_initializer_raises_a_broken_pool():
    with shoal.Executor(1, initializer=tasks.fail_to_start, initargs=("no",)) as executor:
        future = executor.submit(tasks.square, 1)
        with pytest.raises((shoal.InitializerFailed, concurrent.futures.BrokenExecutor)):
            future.result()


def test_initializer_arguments_that_cannot_be_pickled_raise_when_the_pool_is_made():
    with pytest.raises(RuntimeError, match="will not be pickled"):
        shoal.Pool(1, tasks.remember, (tasks.FailsToPickle(),), start="spawn")
