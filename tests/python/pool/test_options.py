# SPDX-License-Identifier: Apache-2.0
"""Time limits that really stop, retries, and cancelling what runs."""

from __future__ import annotations

import concurrent.futures
import time

import pytest
import shoal
import tasks
from pool_kinds import SHOAL, WATCHDOG, make_executor, make_pool

pytestmark = WATCHDOG


@pytest.fixture(params=SHOAL, scope="module")
def pool(request):
    with make_pool(request.param) as pool:
        yield pool


@pytest.fixture(params=SHOAL, scope="module")
def executor(request):
    with make_executor(request.param) as executor:
        yield executor


LIMIT = 0.2
ENDLESS = {
    "sleeps": tasks.sleep_for_ever,
    "computes": tasks.spin_for_ever,
    "swallows every exception": tasks.swallow_for_ever,
    "stays in a C function": tasks.count_in_c,
}


@pytest.mark.parametrize("what", ENDLESS)
def test_time_limit_stops_a_task_that(pool, what):
    with pytest.raises(shoal.TaskTimeout, match=r"limit of 0\.2 s") as caught:
        pool.apply(ENDLESS[what], timeout=LIMIT)
    assert isinstance(caught.value, TimeoutError)
    assert ENDLESS[what].__name__ in str(caught.value)
    assert pool.map(tasks.square, range(10), 1) == [i * i for i in range(10)]


def test_interrupted_task_keeps_its_worker_and_runs_its_finally(tmp_path):
    with shoal.Pool(1) as pool:
        pid = pool.apply(tasks.pid)
        path = tmp_path / "finally"
        with pytest.raises(shoal.TaskTimeout):
            pool.apply(tasks.sleep_in_finally, (str(path),), timeout=LIMIT)
        assert path.exists()
        assert pool.apply(tasks.pid) == pid


def test_time_limit_counts_from_when_the_task_runs(tmp_path):
    with shoal.Pool(1) as pool:
        go = tmp_path / "go"
        first = pool.apply_async(tasks.wait_for, (str(go),))
        queued = pool.apply_async(tasks.square, (3,), timeout=0.05)
        time.sleep(0.2)
        go.touch()
        assert first.get() is None
        assert queued.get() == 9


def test_every_task_method_takes_a_time_limit(pool):
    for result in (
        pool.apply_async(tasks.sleep_for_ever, timeout=LIMIT),
        pool.map_async(_sleep_at_one, range(3), timeout=LIMIT),
        pool.starmap_async(_sleep_at_one, [(0,), (1,)], timeout=LIMIT),
    ):
        with pytest.raises(shoal.TaskTimeout):
            result.get()
    with pytest.raises(shoal.TaskTimeout):
        pool.map(_sleep_at_one, range(3), timeout=LIMIT)
    with pytest.raises(shoal.TaskTimeout):
        pool.starmap(_sleep_at_one, [(1,)], timeout=LIMIT)
    for method in (pool.imap, pool.imap_unordered):
        results = method(_sleep_at_one, range(3), timeout=LIMIT)
        values, errors = [], []
        while True:
            try:
                values.append(next(results))
            except StopIteration:
                break
            except shoal.TaskTimeout as error:
                errors.append(error)
        assert (sorted(values), len(errors)) == ([0, 2], 1)


def _sleep_at_one(x):
    if x == 1:
        tasks.sleep_for_ever()
    return x


def test_time_limit_holds_for_each_item_of_a_chunk(pool):
    results = pool.imap(_sleep_at_list_of_one, [[0], [1], [2], [3]], 4, timeout=LIMIT)
    assert next(results) == [0]
    with pytest.raises(shoal.TaskTimeout):
        next(results)
    assert list(results) == [[2], [3]]


def _sleep_at_list_of_one(x):
    _sleep_at_one(x[0])
    return x


def test_tasks_within_their_limit_are_left_alone(pool):
    assert pool.map(tasks.square, range(1000), timeout=30) == [i * i for i in range(1000)]
    assert pool.apply(tasks.square, (3,), timeout=30) == 9


def test_time_limits_close_to_the_tasks_end_never_reach_the_next_task(pool):
    """An interrupt that comes too late must hit nobody."""
    done = stopped = 0
    for _ in range(100):
        try:
            pool.apply(time.sleep, (0.004,), timeout=0.005)
            done += 1
        except shoal.TaskTimeout:
            stopped += 1
        assert pool.apply(tasks.square, (3,)) == 9
    assert done + stopped == 100


@pytest.mark.parametrize("value", [0, -1, "1", True, float("nan")])
def test_bad_time_limits_are_refused(pool, value):
    with pytest.raises(ValueError, match="timeout"):
        pool.apply(tasks.square, (1,), timeout=value)
    with pytest.raises(ValueError, match="timeout"):
        pool.imap(tasks.square, [1], timeout=value)
    with pytest.raises(ValueError, match="timeout"):
        shoal.Executor.options(None, timeout=value)


def test_executor_options_have_submit_and_map(executor):
    limited = executor.options(timeout=LIMIT)
    with pytest.raises(shoal.TaskTimeout):
        limited.submit(tasks.sleep_for_ever).result()
    results = limited.map(_sleep_at_one, range(2))
    assert next(results) == 0
    with pytest.raises(shoal.TaskTimeout):
        next(results)
    assert list(limited.map(tasks.add, [1, 2], [3, 4], chunksize=2)) == [4, 6]
    assert limited.submit(tasks.everything, timeout=1).result() == ((), {"timeout": 1})
    assert executor.submit(tasks.square, 3).result() == 9


def test_executor_options_retry_after_deaths(executor, tmp_path):
    patient = executor.options(retries=1)
    assert patient.submit(_die_once, str(tmp_path / "a")).result() == "alive"
    assert list(patient.map(_die_once, [str(tmp_path / "b")])) == ["alive"]
    with pytest.raises(shoal.WorkerDied):
        patient.submit(tasks.die, 9).result()


def _die_once(marker):
    import os

    if not os.path.exists(marker):
        tasks.touch(marker)
        os.kill(os.getpid(), 9)
    return "alive"


# ---- Cancelling ----------------------------------------------------------------------------------


def test_result_of_a_running_task_can_be_cancelled(pool, tmp_path):
    for what in ("sleeps", "computes", "stays in a C function"):
        started = tmp_path / what
        result = pool.apply_async(_announce_and, (str(started), ENDLESS[what]))
        tasks.wait_for(str(started))
        assert result.cancel()
        with pytest.raises(concurrent.futures.CancelledError):
            result.get()
        assert not result.cancel()
    assert pool.apply(tasks.square, (3,)) == 9


def _announce_and(path, function):
    tasks.touch(path)
    return function()


def test_result_of_a_queued_task_can_be_cancelled(tmp_path):
    with shoal.Pool(1) as pool:
        started, go, ran = tmp_path / "started", tmp_path / "go", tmp_path / "ran"
        running = pool.apply_async(tasks.announce_and_wait, (str(started), str(go)))
        tasks.wait_for(str(started))
        queued = pool.apply_async(tasks.touch, (str(ran),))
        assert queued.cancel()
        assert queued.ready()
        assert not queued.successful()
        with pytest.raises(concurrent.futures.CancelledError):
            queued.get()
        go.touch()
        running.get()
        pool.apply(tasks.square, (1,))
        assert not ran.exists()


def test_finished_result_cannot_be_cancelled(pool):
    result = pool.apply_async(tasks.square, (2,))
    result.wait()
    assert not result.cancel()
    assert result.get() == 4


def test_map_can_be_cancelled(pool, tmp_path):
    started = tmp_path / "started"
    result = pool.map_async(_announce_and_sleep, [str(started)] * 50, chunksize=1)
    tasks.wait_for(str(started))
    assert result.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        result.get()
    assert pool.map(tasks.square, range(10)) == [i * i for i in range(10)]


def _announce_and_sleep(path):
    tasks.touch(path)
    tasks.sleep_for_ever()


def test_error_callback_hears_of_a_cancel(pool, tmp_path):
    import threading

    heard, told = [], threading.Event()

    def hear(error):
        heard.append(error)
        told.set()

    started = tmp_path / "started"
    result = pool.apply_async(_announce_and_sleep, (str(started),), error_callback=hear)
    tasks.wait_for(str(started))
    result.cancel()
    told.wait()
    assert isinstance(heard[0], concurrent.futures.CancelledError)


def test_cancelled_future_frees_its_worker(executor, tmp_path):
    for what in ("sleeps", "swallows every exception"):
        started = tmp_path / what
        future = executor.submit(_announce_and, str(started), ENDLESS[what])
        tasks.wait_for(str(started))
        assert future.cancel()
        assert future.cancelled()
    # Both workers are needed for these.
    a, b = tmp_path / "a", tmp_path / "b"
    first = executor.submit(tasks.announce_and_wait, str(a), str(b))
    second = executor.submit(tasks.announce_and_wait, str(b), str(a))
    assert first.result() != second.result()
