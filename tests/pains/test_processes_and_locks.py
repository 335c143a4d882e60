# SPDX-License-Identifier: Apache-2.0
"""What users of process pools and locks have suffered from for years, each as a program of a few
lines. The letters in the names are the rows of the list of pains; queues, pipes and shared memory
blocks have files of their own.

The programs are written for the standard library: they import `shoal.multiprocessing` in the place
of `multiprocessing`, and where they need `concurrent.futures`, `shoal.install()` stands first.
"""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

pytestmark = pytest.mark.timeout(300)


def test_a1_a_killed_worker_costs_its_task_and_the_pool_goes_on(interpreter) -> None:
    """`Pool.map` waited for ever once the kernel had killed a worker: its task was just gone."""
    interpreter("""
        import os, signal
        import shoal.multiprocessing as mp
        from concurrent.futures.process import BrokenProcessPool

        def die(number):
            if number == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            return number

        with mp.get_context("fork").Pool(2) as pool:
            try:
                pool.map(die, range(6), 1)
                raise SystemExit("no error")
            except BrokenProcessPool as error:
                assert "SIGKILL" in str(error) and "die(3)" in str(error), error
            assert pool.map(abs, [-1, -2]) == [1, 2]
    """).check()


def test_a2_the_lock_of_a_dead_owner_goes_to_the_next_who_is_told(interpreter) -> None:
    """A lock held by a process that died was never released: everybody else stopped there."""
    interpreter("""
        import os, signal, warnings
        import shoal.multiprocessing as mp

        def die_with(lock):
            lock.acquire()
            os.kill(os.getpid(), signal.SIGKILL)

        context = mp.get_context("fork")
        lock = context.Lock()
        child = context.Process(target=die_with, args=(lock,))
        child.start()
        child.join()
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            assert lock.acquire()
        assert lock.owner_died and len(told) == 1
        lock.release()
    """).check()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a7_workers_that_are_recycled_do_all_tasks(interpreter, method: str) -> None:
    """With `max_tasks_per_child` an executor stopped when its first workers had had their share."""
    interpreter(
        """
        import multiprocessing, os, sys
        import shoal
        shoal.install()
        from concurrent.futures import ProcessPoolExecutor

        def pid(number):
            return os.getpid()

        if __name__ == "__main__":
            context = multiprocessing.get_context(sys.argv[1])
            with ProcessPoolExecutor(2, context, max_tasks_per_child=2) as executor:
                pids = [future.result() for future in [executor.submit(pid, i) for i in range(10)]]
            assert max(map(pids.count, pids)) <= 2, pids
        """,
        method,
    ).check()


def test_a8_an_exception_that_cannot_be_rebuilt_is_an_error_of_its_task(interpreter) -> None:
    """An exception whose constructor wants other arguments hung the pool, broke the executor."""
    interpreter("""
        import multiprocessing
        import shoal
        shoal.install()
        from concurrent.futures import ProcessPoolExecutor

        class Picky(Exception):
            def __init__(self, code, text):
                super().__init__(text)

        def fail(number):
            raise Picky(7, "the reason")

        context = multiprocessing.get_context("fork")
        with context.Pool(2) as pool, ProcessPoolExecutor(2, context) as executor:
            submit = executor.submit
            for attempt in (lambda: pool.apply(fail, (1,)), lambda: submit(fail, 1).result()):
                try:
                    attempt()
                    raise SystemExit("no error")
                except shoal.RemoteError as error:
                    assert "Picky" in str(error) and "the reason" in str(error), error
            assert pool.apply(abs, (-1,)) == executor.submit(abs, -1).result() == 1
    """).check()


def test_a9_whatever_ends_a_task_is_its_outcome(interpreter) -> None:
    """A task that left by sys.exit(), or by any BaseException, took its result with it: a hang."""
    interpreter("""
        import sys
        import shoal.multiprocessing as mp

        class Odd(BaseException):
            pass

        def leave(number):
            raise (SystemExit(3), Odd("odd"), KeyboardInterrupt())[number]

        with mp.get_context("fork").Pool(2) as pool:
            for number, kind in enumerate((SystemExit, Odd, KeyboardInterrupt)):
                try:
                    pool.apply(leave, (number,))
                    raise AssertionError("no error")
                except kind:
                    pass
            assert pool.apply(abs, (-1,)) == 1
    """).check()


def test_a10_a_failing_initializer_is_one_clear_error(interpreter) -> None:
    """The pool started worker after worker for ever, some hundred a second, and said nothing."""
    interpreter("""
        import os
        import shoal, shoal.multiprocessing as mp

        def initialize(path):
            with open(path, "a") as file:
                file.write("x")
            raise ValueError("no database")

        with mp.get_context("fork").Pool(2, initialize, ("starts",)) as pool:
            try:
                pool.map(abs, [1])
                raise SystemExit("no error")
            except shoal.InitializerFailed as error:
                assert "no database" in str(error) and type(error.__cause__) is ValueError
        assert os.path.getsize("starts") < 20
    """).check()


def test_b1_a_broken_executor_says_who_died_of_what_and_heals_if_asked(interpreter) -> None:
    """ "A process in the process pool was terminated abruptly": which, why, while it ran what?"""
    program = """
        import multiprocessing, os
        import shoal
        shoal.install()
        from concurrent.futures import ProcessPoolExecutor
        from concurrent.futures.process import BrokenProcessPool

        def die(number):
            os._exit(9)

        with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as executor:
            try:
                executor.submit(die, 5).result()
            except BrokenProcessPool as error:
                assert "exited with code 9" in str(error) and "die(5)" in str(error), error
                assert error.exitcode == 9 and error.pid
            try:
                print(executor.submit(abs, -4).result())
            except BrokenProcessPool as error:
                assert "die(5)" in str(error), error
                print("broken")
    """
    assert interpreter(program).check() == "broken\n"
    assert interpreter(program, env={"SHOAL_HEAL": "1"}).check() == "4\n"


def test_b5_one_task_is_timed_out_or_cancelled_and_the_others_run_on(interpreter) -> None:
    """A running task could not be stopped without killing every worker and losing all the rest."""
    interpreter("""
        import time
        from concurrent.futures import CancelledError
        import shoal.multiprocessing as mp

        with mp.get_context("fork").Pool(3) as pool:
            other = pool.apply_async(time.sleep, (1,))
            late = pool.apply_async(time.sleep, (600,), timeout=0.2)
            unwanted = pool.apply_async(time.sleep, (600,))
            unwanted.cancel()
            for result, kind in ((late, TimeoutError), (unwanted, CancelledError)):
                try:
                    result.get()
                    raise SystemExit("no error")
                except kind:
                    pass
            assert other.get() is None and pool.apply(abs, (-1,)) == 1
    """).check()


def test_b6_no_worker_outlives_a_killed_parent(interpreter, wait_until) -> None:
    """The workers of a program that was killed stayed behind as orphans, with all their memory."""
    process = interpreter.start("""
        import time
        import shoal.multiprocessing as mp

        pool = mp.get_context("fork").Pool(2)
        pool.apply(abs, (-1,))
        print(*pool.worker_pids(), flush=True)
        time.sleep(600)
    """)
    with process:
        pids = [int(pid) for pid in process.stdout.readline().split()]
        process.send_signal(signal.SIGKILL)
        assert pids
        wait_until(lambda: not any(map(_runs, pids)), "the workers' end")


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_d1_large_arrays_come_whole_writable_and_not_through_pipes(interpreter) -> None:
    """Arrays went pickled through a pipe of 64 KB, copied several times on the way."""
    pytest.importorskip("numpy")
    interpreter("""
        import numpy
        import shoal.multiprocessing as mp

        def double(array):
            array *= 2
            return array

        with mp.get_context("fork").Pool(1) as pool:
            sent = numpy.arange(2_000_000.0)
            got = pool.apply(double, (sent,))
            assert (got == sent * 2).all() and got.flags.writeable
            got[0] = 1
            assert pool.statistics()["bytes_in"] < 2 * sent.nbytes  # one copy each way, at most
    """).check()


def test_d2_tiny_tasks_are_not_swamped_by_what_sending_them_costs(interpreter) -> None:
    """A call cost 250 us and more, so 20,000 small ones were slower than a plain loop by far."""
    interpreter("""
        import shoal.multiprocessing as mp

        with mp.get_context("fork").Pool(2) as pool:
            assert sum(pool.imap(abs, range(20_000))) == sum(range(20_000))
            done = pool.statistics()["per_worker"]
        assert sum(seat["tasks"] for seat in done) == 20_000
        assert sum(seat["batches"] for seat in done) < 10_000  # they travel together
    """).check()


def test_d3_edits_of_nested_manager_objects_are_seen_by_all(interpreter) -> None:
    """Each access was a round trip to a server, and proxies in proxies broke when shared."""
    interpreter("""
        import shoal.multiprocessing as mp

        def edit(outer):
            outer["inner"].append(2)
            outer["new"] = 3

        context = mp.get_context("fork")
        with context.Manager() as manager:
            outer = manager.dict(inner=manager.list([1]))
            child = context.Process(target=edit, args=(outer,))
            child.start()
            child.join()
            assert list(outer["inner"]) == [1, 2] and outer["new"] == 3
    """).check()


def test_d8_waiting_costs_no_processor_time(interpreter) -> None:
    """Queues in shared memory spun for work: idle programs held several cores at 100 %."""
    interpreter("""
        import queue, resource, time
        import shoal.multiprocessing as mp

        context = mp.get_context("fork")
        waited_for, lock = context.Queue(), context.Lock()
        with context.Pool(2) as pool:
            pool.map(abs, range(100))
            before = time.process_time()
            try:
                waited_for.get(timeout=1)
            except queue.Empty:
                pass
            lock.acquire()
            assert not lock.acquire(timeout=1)
            assert time.process_time() - before < 0.4
            pool.close()
            pool.join()
        assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime < 1
    """).check()


def test_d11_counting_in_several_processes_loses_nothing(interpreter) -> None:
    """`value.value += 1` lost updates silently, and the lock that mends it was slow."""
    interpreter("""
        import shoal, shoal.multiprocessing as mp

        total = shoal.Atomic(0)

        def count(turns):
            for _ in range(turns):
                total.add(1)

        context = mp.get_context("fork")
        children = [context.Process(target=count, args=(20_000,)) for _ in range(4)]
        for child in children:
            child.start()
        for child in children:
            child.join()
        assert total.value == 80_000
    """).check()


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("kind", ["pool", "executor"])
def test_h3_one_ctrl_c_ends_the_program_with_one_traceback(interpreter, kind, method) -> None:
    """Ctrl-C printed a traceback a worker, had to be held down, and left processes behind."""
    process = interpreter.start(
        """
        import os, sys, time
        import shoal; shoal.install()
        import multiprocessing as mp
        from concurrent.futures import ProcessPoolExecutor

        def work(number):
            if number == 0:
                os.write(1, b"begun\\n")
            time.sleep(600)

        if __name__ == "__main__":
            context = mp.get_context(sys.argv[2])
            if sys.argv[1] == "pool":
                with context.Pool(2) as pool:
                    pool.map(work, range(8), 1)
            else:
                with ProcessPoolExecutor(2, mp_context=context) as executor:
                    list(executor.map(work, range(8)))
        """,
        kind,
        method,
    )
    assert process.stdout.readline() == "begun\n"
    os.killpg(process.pid, signal.SIGINT)  # as the terminal does: to all of them, once
    try:
        out, err = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        interpreter.kill_group(process)
        raise
    assert process.returncode == -signal.SIGINT and out == ""
    assert err.count("Traceback (most recent call last)") == 1, err
    assert err.rstrip().endswith("KeyboardInterrupt")


@pytest.mark.parametrize("block", ["with", "at exit"])
@pytest.mark.parametrize("kind", ["native", "fork", "spawn"])
def test_h3_one_ctrl_c_stops_the_tasks_that_an_executor_runs(interpreter, kind, block) -> None:
    """Nobody waits for hours for tasks whose program has been interrupted; they clean up."""
    process = interpreter.start(
        """
        import os, sys, time
        import shoal
        import multiprocessing as mp
        from concurrent.futures import ProcessPoolExecutor, as_completed

        def work(number):
            try:
                os.write(1, b"begun\\n")
                time.sleep(600)
            finally:
                os.write(1, b"cleaned up\\n")

        def wait_for_all(executor):
            for future in as_completed([executor.submit(work, n) for n in range(4)]):
                pass

        if __name__ == "__main__":
            if sys.argv[1] == "native":
                executor = shoal.Executor(2)
            else:
                shoal.install()
                executor = ProcessPoolExecutor(2, mp_context=mp.get_context(sys.argv[1]))
            if sys.argv[2] == "with":
                with executor:
                    wait_for_all(executor)
            else:
                wait_for_all(executor)
        """,
        kind,
        block,
    )
    assert [process.stdout.readline() for _ in range(2)] == ["begun\n"] * 2
    os.killpg(process.pid, signal.SIGINT)
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert err.count("Traceback") == 1 and "KeyboardInterrupt" in err, err
    assert out == "cleaned up\n" * 2
