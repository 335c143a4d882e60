# SPDX-License-Identifier: Apache-2.0
"""What a thread does for a pool, or waits for, while another thread ends the pool, or while the
pool gives up.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from concurrent.futures import TimeoutError as FutureTimeoutError  # 3.10: not the built-in one
from typing import Any

import pytest
import shoal
from pool_kinds import WATCHDOG
from shoal._pool._futures import Future
from shoal._pool._results import AsyncResult

pytestmark = WATCHDOG


def _begin_and_wait(begun: Any) -> None:
    begun.set()
    signal.pause()


def _engine(pool: Any) -> Any:
    return pool._engine


def test_losses_that_are_delivered_while_another_thread_ends_the_pool_reach_everyone(
    wait_until,
) -> None:
    pool = shoal.Pool(2)
    engine = _engine(pool)
    begun = [shoal.Event(), shoal.Event()]
    results = [pool.apply_async(_begin_and_wait, (event,)) for event in begun]
    for event in begun:
        event.wait()
    pids = pool.worker_pids()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    # Both deaths are recorded before the first is resolved.
    wait_until(lambda: not any(s["ready"] for s in engine.client.seats() if s["pid"] in pids))
    worker_died = engine._hooks.worker_died
    enders: list[threading.Thread] = []

    def end() -> None:
        engine.client.collect(0)
        pool.terminate()

    def died(*arguments: Any) -> BaseException:
        if not enders:
            enders.append(threading.Thread(target=end))
            enders[0].start()
            enders[0].join()
        error: BaseException = worker_died(*arguments)
        return error

    engine._hooks.worker_died = died
    for result in results:
        with pytest.raises(shoal.WorkerDied):
            result.get()


reading, may_go_on = threading.Event(), threading.Event()


def _rebuild(client: int) -> int:
    if os.getpid() == client:
        reading.set()
        may_go_on.wait()
    return 5


class SlowToRead:
    def __init__(self, client: int) -> None:
        self.client = client

    def __reduce__(self) -> Any:
        return _rebuild, (self.client,)


def test_waits_for_a_result_that_is_read_while_the_pool_ends_keep_their_time_limits() -> None:
    for make, submit, get in (
        (shoal.Pool, lambda pool, *call: pool.apply_async(call[0], call[1:]), "get"),
        (shoal.Executor, lambda executor, *call: executor.submit(*call), "result"),
    ):
        reading.clear()
        may_go_on.clear()
        pool = make(1)
        result = submit(pool, SlowToRead, os.getpid())
        reader = threading.Thread(target=getattr(result, get))
        reader.start()
        reading.wait()
        _engine(pool).terminate()
        try:
            with pytest.raises((FutureTimeoutError, multiprocessing.TimeoutError)):
                getattr(result, get)(timeout=0.01)
        finally:
            may_go_on.set()
        assert getattr(result, get)() == 5
        reader.join()


def test_a_wait_for_an_outcome_that_cannot_come_raises() -> None:
    pool = shoal.Pool(1)
    engine = _engine(pool)
    pool.terminate()
    for wait in (
        AsyncResult(engine, None, None).get,
        AsyncResult(engine, None, None).wait,
        Future(engine).result,
        Future(engine).exception,
    ):
        with pytest.raises(shoal.PoolClosed):
            wait()


def _fail() -> None:
    raise RuntimeError("no worker can start")


def test_a_pool_that_gave_up_does_not_wait_for_an_input_that_blocks(wait_until) -> None:
    go_on = threading.Event()

    def numbers() -> Any:
        yield 1
        go_on.wait()

    pool = shoal.Pool(1, _fail)
    try:
        results = pool.imap(abs, numbers())
        failed = pool.apply_async(abs, (1,), error_callback=lambda error: None)
        with pytest.raises(shoal.InitializerFailed):
            failed.get()
        collectors = lambda: [t for t in threading.enumerate() if t.name == "shoal-collector"]  # noqa: E731
        wait_until(lambda: not collectors(), "the collector has ended")
        pool.close()
        pool.join()
    finally:
        go_on.set()
    with pytest.raises(shoal.InitializerFailed):
        list(results)
    wait_until(lambda: threading.active_count() == 1, "the feeder has ended")
