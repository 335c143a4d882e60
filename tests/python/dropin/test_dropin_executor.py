# SPDX-License-Identifier: Apache-2.0
"""What ProcessPoolExecutor pins down and `shoal.Executor` does otherwise: breaking, starting."""

from __future__ import annotations

import multiprocessing
import pickle
import re
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import pytest
import shoal

# The watchdog of each test is a thread.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
METHODS = ["fork", "spawn", "forkserver"]


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    shoal.install()
    yield
    shoal.uninstall()


def refuse() -> None:
    raise pickle.UnpicklingError("not here")


class Unloadable:
    def __reduce__(self) -> object:
        return refuse, ()


def make_unloadable(number: int) -> Unloadable:
    return Unloadable()


def executor_of(method: str, workers: int = 2, **options: object) -> ProcessPoolExecutor:
    context = multiprocessing.get_context(method)
    return ProcessPoolExecutor(workers, context, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHODS)
def test_what_cannot_be_rebuilt_breaks_its_own_future_only(method: str) -> None:
    with executor_of(method) as executor:
        for future in (executor.submit(id, Unloadable()), executor.submit(make_unloadable, 1)):
            with pytest.raises(BrokenProcessPool, match="could not be rebuilt.*not here") as caught:
                future.result()
            assert type(caught.value.__cause__) is pickle.UnpicklingError
        assert executor.submit(abs, -1).result() == 1


def start_a_process() -> tuple[str, bool, int | None]:
    process = multiprocessing.get_context("fork").Process(target=abs, args=(1,))
    process.start()
    process.join()
    me = multiprocessing.current_process()
    return me.name, me.daemon, process.exitcode


@pytest.mark.parametrize("method", METHODS)
def test_tasks_may_start_processes(method: str) -> None:
    with executor_of(method, 1) as executor:
        name, daemon, status = executor.submit(start_a_process).result()
    assert re.fullmatch(r"(Fork|Spawn|ForkServer)Process-\d+", name)
    assert (daemon, status) == (False, 0)


@pytest.mark.parametrize("method", METHODS)
def test_the_death_of_an_idle_worker_breaks_the_executor(method: str) -> None:
    with executor_of(method, 1) as executor:
        executor.submit(abs, -1).result()
        (worker,) = executor._processes.values()
        worker.kill()
        worker.join()
        future = None
        with pytest.raises(BrokenProcessPool, match="SIGKILL"):
            while True:  # until the agent has recorded it
                future = executor.submit(abs, -1)
                future.result()
        with pytest.raises(BrokenProcessPool, match="SIGKILL"):
            executor.submit(abs, -1)


def test_a_death_stops_what_the_other_workers_run() -> None:
    began = time.monotonic()
    with executor_of("fork") as executor:
        long = executor.submit(time.sleep, 600)
        lost = executor.submit(signal.raise_signal, signal.SIGKILL)
        with pytest.raises(shoal.WorkerDied, match="raise_signal"):
            lost.result()
        with pytest.raises(BrokenProcessPool, match="raise_signal") as caught:
            long.result()
        assert isinstance(caught.value.__cause__, shoal.WorkerDied)
    assert time.monotonic() - began < 300


def test_workers_start_as_tasks_need_them() -> None:
    with executor_of("forkserver", 4) as executor:
        for number in range(5):
            assert executor.submit(abs, -number).result() == number
        assert len(executor._processes) == 1
        assert list(executor.map(abs, range(3))) == [0, 1, 2]
        assert len(executor._processes) == 3


def test_a_lambda_is_no_result_and_a_task_all_the_same() -> None:
    with executor_of("fork", 1) as executor:
        assert executor.submit(lambda: 5).result() == 5
        with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
            executor.submit(lambda: lambda: 5).result()


def test_nothing_is_scheduled_after_the_end(interpreter) -> None:
    done = interpreter("""
        import atexit
        import shoal
        shoal.install()

        @atexit.register
        def late():
            try:
                executor.submit(abs, -1)
            except RuntimeError as error:
                print(type(error).__name__, error)

        from concurrent.futures import ProcessPoolExecutor

        executor = ProcessPoolExecutor(1)
    """)
    text = "RuntimeError cannot schedule new futures after interpreter shutdown\n"
    assert done.check() == text


def test_an_input_that_fails_within_a_chunk_takes_the_chunk_with_it() -> None:
    def numbers() -> Iterator[int]:
        yield from range(7)
        raise ValueError("the seventh")

    with multiprocessing.get_context("fork").Pool(2) as pool:
        for chunksize, whole in ((1, 7), (2, 6), (4, 4)):
            results = pool.imap(abs, numbers(), chunksize)
            assert [next(results) for _ in range(whole)] == list(range(whole))
            with pytest.raises(ValueError, match="the seventh"):
                next(results)


def test_the_native_executor_takes_a_context() -> None:
    with shoal.Executor(1, multiprocessing.get_context("spawn")) as executor:
        assert executor.statistics()["start"] == "spawn"
    with pytest.raises(ValueError, match="not both"):
        shoal.Executor(1, multiprocessing.get_context("spawn"), start="fork")


def wait_for(started: object, gate: object, number: int) -> int:
    started.put(number)  # type: ignore[attr-defined]
    gate.wait()  # type: ignore[attr-defined]
    return number


def test_who_is_being_ended_by_force_runs_nothing_more() -> None:
    context = multiprocessing.get_context("spawn")
    manager = context.Manager()
    started, gate = manager.Queue(), manager.Event()
    with executor_of("spawn", 1, max_tasks_per_child=1) as executor:
        futures = [executor.submit(wait_for, started, gate, number) for number in range(3)]
        assert started.get() == 0
        assert not executor._force_shutting_down  # type: ignore[attr-defined]
        with executor._shutdown_lock:  # type: ignore[attr-defined]
            executor._force_shutting_down = True  # type: ignore[attr-defined]
        gate.set()
        assert futures[0].result() == 0
        for future in futures[1:]:
            with pytest.raises(BrokenProcessPool, match="forcefully shut down"):
                future.result()
    assert started.empty()


def test_the_cause_names_the_process_as_it_does_there() -> None:
    with executor_of("fork", 1) as executor, pytest.raises(BrokenProcessPool) as caught:
        executor.submit(signal.raise_signal, signal.SIGKILL).result()
    if sys.version_info >= (3, 15):
        assert "terminated abruptly with exit code -9" in str(caught.value.__cause__)
    else:
        assert caught.value.__cause__ is None


def test_a_ctrl_c_while_a_worker_is_started_cancels_nothing_that_was_sent(interpreter) -> None:
    """The program may catch it and go on, as it may under the standard library."""
    interpreter(
        """
        import os, signal
        import shoal
        shoal.install()
        from concurrent.futures import ProcessPoolExecutor
        import multiprocessing as mp
        from shoal._dropin import _keeper

        if __name__ == "__main__":
            with ProcessPoolExecutor(2, mp_context=mp.get_context("spawn")) as executor:
                first = executor.submit(abs, -1)  # its worker takes a while to be there
                start = _keeper.Keeper._start

                def press_and_start(self, seat):
                    os.kill(os.getpid(), signal.SIGINT)
                    return start(self, seat)

                _keeper.Keeper._start = press_and_start
                try:
                    executor.submit(abs, -2)
                    raise SystemExit("no Ctrl-C came")
                except KeyboardInterrupt:
                    pass
                _keeper.Keeper._start = start
                assert first.result() == 1
                assert executor.submit(abs, -3).result() == 3
        """
    ).check()


def test_an_old_ctrl_c_at_a_prompt_cancels_nothing_at_exit(interpreter) -> None:
    finished = interpreter(
        """
        import sys, time
        import shoal
        executor = shoal.Executor(1)
        future = executor.submit(time.sleep, 0.2)
        sys.ps1, sys.last_type = ">>> ", KeyboardInterrupt
        future.add_done_callback(lambda done: print(done.cancelled(), done.exception()))
        """
    )
    assert finished.check() == "False None\n"
