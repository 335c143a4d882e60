# SPDX-License-Identifier: Apache-2.0
"""The drop-in keeps the standard library's word where shoal's own classes promise something else.

Programs run with SHOAL_RUN=1, so they are what a user's program is under `shoal run`.
"""

from __future__ import annotations

import sys

import pytest

START_METHODS = ["fork", "spawn", "forkserver"]  # (joblib adds its own to those of multiprocessing)


@pytest.fixture
def program(interpreter):
    def run(source: str, *arguments: str):
        return interpreter(source, *arguments, env={"SHOAL_RUN": "1"}).check()

    return run


def test_executor_forks_with_the_first_task_so_workers_see_what_was_made_before_it(program) -> None:
    program("""
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        executor = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))
        data = [1, 2, 3]

        def total():
            return sum(data)

        assert executor.submit(total).result() == 6
        executor.shutdown()
    """)


def test_pool_forks_when_it_is_made_so_workers_see_globals_of_then(program) -> None:
    program("""
        import multiprocessing

        state, other = [], "before"

        def read(_):
            return list(state), other

        state.append("before")
        with multiprocessing.get_context("fork").Pool(1) as pool:
            state.append("after")
            other = None
            assert pool.map(read, [0]) == [(["before"], "before")]
    """)


def test_running_future_cannot_be_cancelled(program, tmp_path) -> None:
    program(
        """
        import sys
        import time
        from concurrent.futures import ProcessPoolExecutor
        from pathlib import Path

        begun, end = Path(sys.argv[1], "begun"), Path(sys.argv[1], "end")

        def task():
            begun.touch()
            while not end.exists():
                time.sleep(0.001)
            return "done"

        if __name__ == "__main__":
            with ProcessPoolExecutor(1) as executor:
                future = executor.submit(task)
                waiting = [executor.submit(abs, -n) for n in range(9)]
                while not begun.exists():
                    time.sleep(0.001)
                assert future.running() and not future.cancel() and not future.cancelled()
                executor._engine._agent.ring()  # whoever watches the workers has nothing to stop
                time.sleep(0.1)
                assert future.running()
                assert waiting[-1].cancel() and waiting[-1].cancelled()
                end.touch()
                assert future.result() == "done"
                assert waiting[0].result() == 0
        """,
        str(tmp_path),
    )


@pytest.mark.parametrize("method", START_METHODS)
def test_a_workers_death_breaks_the_executor(program, method: str) -> None:
    program(
        """
        import multiprocessing
        import os
        import signal
        import sys
        from concurrent.futures import ProcessPoolExecutor
        from concurrent.futures.process import BrokenProcessPool

        def die():
            os.kill(os.getpid(), signal.SIGKILL)

        def expect(call):
            try:
                call()
            except BrokenProcessPool:
                return
            raise AssertionError("not broken")

        if __name__ == "__main__":
            context = multiprocessing.get_context(sys.argv[1])
            with ProcessPoolExecutor(1, mp_context=context) as executor:
                futures = [executor.submit(die), executor.submit(abs, -1)]
                for future in futures:
                    expect(future.result)
                expect(lambda: executor.submit(abs, -1))
        """,
        method,
    )


def test_a_workers_death_costs_a_pool_one_task(program) -> None:
    program("""
        import multiprocessing
        import os
        import signal
        from concurrent.futures.process import BrokenProcessPool

        def die():
            os.kill(os.getpid(), signal.SIGKILL)

        if __name__ == "__main__":
            with multiprocessing.Pool(2) as pool:
                lost = pool.apply_async(die)
                others = [pool.apply_async(abs, (-n,)) for n in range(100)]
                assert [result.get() for result in others] == list(range(100))
                try:
                    lost.get()
                except BrokenProcessPool as error:
                    assert "die" in str(error)
                else:
                    raise AssertionError("no error")
                assert pool.map(abs, range(-5, 0)) == [5, 4, 3, 2, 1]
    """)


def test_remote_tracebacks_are_the_standard_librarys_types(program) -> None:
    program("""
        import concurrent.futures.process
        import multiprocessing.pool

        def fail(_=None):
            raise KeyError("this one")  # the source line

        def check(call, kind):
            try:
                call()
            except KeyError as error:
                assert type(error.__cause__) is kind, type(error.__cause__)
                assert "# the source line" in str(error.__cause__)
            else:
                raise AssertionError("no error")

        if __name__ == "__main__":
            with multiprocessing.Pool(1) as pool:
                kind = multiprocessing.pool.RemoteTraceback
                check(lambda: pool.apply(fail), kind)
                check(lambda: pool.map(fail, [1]), kind)
                check(lambda: list(pool.imap(fail, [1])), kind)
            with concurrent.futures.ProcessPoolExecutor(1) as executor:
                kind = concurrent.futures.process._RemoteTraceback
                check(lambda: executor.submit(fail).result(), kind)
                check(lambda: list(executor.map(fail, [1])), kind)
    """)


def test_results_are_the_standard_librarys_types(program) -> None:
    program("""
        import concurrent.futures
        import multiprocessing.pool

        if __name__ == "__main__":
            with multiprocessing.Pool(1) as pool:
                assert isinstance(pool.apply_async(abs, (1,)), multiprocessing.pool.AsyncResult)
                assert isinstance(pool.map_async(abs, [1]), multiprocessing.pool.AsyncResult)
            with concurrent.futures.ProcessPoolExecutor(1) as executor:
                assert isinstance(executor.submit(abs, 1), concurrent.futures.Future)
    """)


def test_an_executor_that_ran_nothing_starts_nothing(program) -> None:
    program("""
        from concurrent.futures import ProcessPoolExecutor
        from pathlib import Path

        def children():
            return Path("/proc/thread-self/children").read_text().split()

        executor = ProcessPoolExecutor(2)
        assert executor._processes == {} and not children()
        executor.shutdown()
        del executor
        executor = ProcessPoolExecutor(2)
        executor.shutdown()
        for call in (lambda: executor.submit(abs, 1), lambda: executor.map(abs, [1])):
            try:
                call()
            except RuntimeError as error:
                assert "after shutdown" in str(error)
            else:
                raise AssertionError("no error")
    """)


def test_workers_can_be_looked_at_as_before(program) -> None:
    program("""
        import multiprocessing
        import os
        from concurrent.futures import ProcessPoolExecutor

        if __name__ == "__main__":
            with multiprocessing.Pool(2) as pool:
                workers = pool._pool
                assert len(workers) == 2 == pool._processes
                assert pool.apply(os.getpid) in [worker.pid for worker in workers]
                assert all(worker.is_alive() and worker.exitcode is None for worker in workers)
                pool.terminate()
                pool.join()
                for worker in workers:
                    worker.join()
                    assert not worker.is_alive()
            fork = multiprocessing.get_context("fork")  # the others start workers as needed
            with ProcessPoolExecutor(2, mp_context=fork) as executor:
                pid = executor.submit(os.getpid).result()
                assert pid in executor._processes and len(executor._processes) == 2
                assert executor._max_workers == 2
    """)


def test_fork_forks_a_process_with_threads_and_warns_as_cpython_does(program) -> None:
    program(
        """
        import multiprocessing
        import sys
        import threading
        import warnings

        stop = threading.Event()
        thread = threading.Thread(target=stop.wait, daemon=True)
        thread.start()
        state = ["made here"]

        def read():
            return state

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with multiprocessing.get_context("fork").Pool(1) as pool:
                state = ["changed"]
                assert pool.apply(read) == ["made here"]
        stop.set()
        thread.join()
        texts = [str(warning.message) for warning in caught]
        warned = any("multi-threaded" in text for text in texts)
        assert warned == (sys.version_info >= (3, 12)), texts
        """
    )


def test_errors_have_exactly_the_standard_librarys_types(program) -> None:
    program("""
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        def kind(call, *arguments):
            try:
                call(*arguments)
            except Exception as error:
                return type(error)

        with multiprocessing.Pool(1) as pool:
            pass
        for method in (pool.map, pool.map_async, pool.imap, pool.imap_unordered, pool.starmap):
            assert kind(method, len, ["a"]) is ValueError, method
        assert kind(pool.apply, len, ("a",)) is kind(pool.__enter__) is ValueError
        executor = ProcessPoolExecutor(1)
        executor.shutdown()
        assert kind(executor.submit, len, "a") is RuntimeError
        assert kind(ProcessPoolExecutor, 2.5) is kind(ProcessPoolExecutor, "2") is TypeError
    """)


def test_unclosed_pool_warns_with_the_standard_librarys_text(program) -> None:
    program("""
        import gc
        import multiprocessing
        import warnings

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            pool = multiprocessing.Pool(1)
            pool.apply(abs, (-1,))
            del pool
            gc.collect()
        assert "unclosed running multiprocessing pool" in str(caught[-1].message), caught
    """)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the argument came with 3.11")
def test_tasks_per_child_replace_workers(program) -> None:
    program("""
        import os
        from concurrent.futures import ProcessPoolExecutor

        if __name__ == "__main__":
            with ProcessPoolExecutor(1, max_tasks_per_child=2) as executor:
                assert executor._mp_context.get_start_method() == "spawn"
                pids = [executor.submit(os.getpid).result() for _ in range(6)]
            assert len(set(pids)) == 3, pids
    """)


def test_keyword_arguments_may_have_any_name(program) -> None:
    program("""
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        def give(**keywords):
            return sorted(keywords)

        if __name__ == "__main__":
            names = {"self": 1, "fn": 2, "func": 3, "timeout": 4, "retries": 5}
            with ProcessPoolExecutor(1) as executor:
                assert executor.submit(give, **names).result() == sorted(names)
            with multiprocessing.Pool(1) as pool:
                assert pool.apply(give, (), names) == sorted(names)
    """)


@pytest.mark.parametrize("method", START_METHODS)
def test_initializer_may_be_given_what_only_inheritance_carries(program, method: str) -> None:
    program(
        """
        import multiprocessing
        import sys
        from concurrent.futures import ProcessPoolExecutor

        given = {}

        def initialize(lock, queue, pipe, value):
            given.update(lock=lock, queue=queue, pipe=pipe, value=value)

        def work(number):
            with given["lock"]:
                given["value"].value += number
            given["queue"].put(number)
            if number == 0:
                given["pipe"].send("hello")
            return number

        if __name__ == "__main__":
            context = multiprocessing.get_context(sys.argv[1])
            for duplex in (False, True):
                receiver, sender = context.Pipe(duplex)
                lock, queue, value = context.Lock(), context.SimpleQueue(), context.Value("i", 0)
                initargs = (lock, queue, sender, value)
                with context.Pool(2, initialize, initargs) as pool:
                    assert pool.map(work, range(20), chunksize=1) == list(range(20))
                with ProcessPoolExecutor(2, context, initialize, initargs) as executor:
                    assert list(executor.map(work, range(20))) == list(range(20))
                assert sorted(queue.get() for _ in range(40)) == sorted([*range(20)] * 2)
                assert value.value == 380
                assert receiver.recv() == receiver.recv() == "hello"
        """,
        method,
    )


@pytest.mark.parametrize("method", START_METHODS)
def test_proxies_of_a_manager_work_in_workers(program, method: str) -> None:
    program(
        """
        import multiprocessing
        import sys

        def add(items, number):
            items.append(number)

        if __name__ == "__main__":
            context = multiprocessing.get_context(sys.argv[1])
            with context.Manager() as manager:
                items = manager.list()
                with context.Pool(2) as pool:
                    pool.starmap(add, [(items, number) for number in range(10)])
                assert sorted(items) == list(range(10))
        """,
        method,
    )


def test_a_dropped_executor_finishes_its_map(program) -> None:
    program("""
        import gc
        from concurrent.futures import ProcessPoolExecutor

        if __name__ == "__main__":
            executor = ProcessPoolExecutor(2)
            results = executor.map(abs, range(-5, 5))
            processes = executor._processes
            manager, queue = executor._executor_manager_thread, executor._call_queue
            del executor
            gc.collect()
            manager.join()
            queue.join_thread()
            for process in processes.values():
                process.join()
            assert list(results) == [5, 4, 3, 2, 1, 0, 1, 2, 3, 4]
    """)


def test_an_executors_errors_are_the_standard_librarys(program) -> None:
    program("""
        import threading
        from concurrent.futures import ProcessPoolExecutor
        from concurrent.futures.process import BrokenProcessPool

        def lock_of(_):
            return threading.Lock()

        def fail():
            raise ValueError("the initializer's")

        def expect(kind, text, call):
            try:
                call()
            except kind as error:
                assert text in f"{error} {error.__cause__!r}", error
            else:
                raise AssertionError("no error")

        if __name__ == "__main__":
            with ProcessPoolExecutor(1) as executor:
                expect(TypeError, "cannot pickle", executor.submit(lock_of, 1).result)
                expect(TypeError, "cannot pickle", lambda: list(executor.map(lock_of, [1])))
            with ProcessPoolExecutor(1, initializer=fail) as executor:
                future = executor.submit(abs, -1)
                expect(BrokenProcessPool, "the initializer's", future.result)
                expect(BrokenProcessPool, "the initializer's", lambda: executor.submit(abs, -1))
    """)


def test_shutdown_withdraws_what_has_not_begun_and_finishes_what_has(program) -> None:
    program("""
        import time
        from concurrent.futures import ProcessPoolExecutor

        if __name__ == "__main__":
            executor = ProcessPoolExecutor(2)
            futures = [executor.submit(time.sleep, 0.05) for _ in range(50)]
            executor.shutdown(cancel_futures=True)
            assert all(future.done() for future in futures)
            finished = [future for future in futures if not future.cancelled()]
            assert 0 < len(finished) < 20
            assert all(future.result() is None for future in finished)
    """)


def test_a_submodule_is_shoals_whichever_was_imported_first(interpreter) -> None:
    interpreter("""
        import multiprocessing.queues, multiprocessing.shared_memory, multiprocessing.util
        from shoal.multiprocessing import queues, shared_memory, util

        assert queues.__name__ == "shoal.multiprocessing.queues", queues
        assert shared_memory.__name__ == "shoal.multiprocessing.shared_memory", shared_memory
        assert util is multiprocessing.util

        import shoal.multiprocessing
        import sys
        assert shoal.multiprocessing.sys is sys
    """).check()
