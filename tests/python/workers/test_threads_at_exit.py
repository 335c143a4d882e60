# SPDX-License-Identifier: Apache-2.0
"""The interpreter exits while threads wait for a pool or an executor."""

from __future__ import annotations

import pytest

STARTS = ("zygote", "fork", "spawn")


@pytest.fixture(params=STARTS)
def start(request):
    return request.param


EXIT_WAITS = {
    "apply": "pool.apply(time.sleep, (1000,))",
    "get": "pool.apply_async(time.sleep, (1000,), callback=print).get()",
    "map": "pool.map(time.sleep, [1000] * 10, 1)",
    "map_async": "pool.map_async(time.sleep, [1000] * 10).get()",
    "imap": "list(pool.imap(time.sleep, [1000] * 10))",
    "feeder": "list(pool.imap_unordered(time.sleep, iter([1000] * 10)))",
    "input that waits": "list(pool.imap(abs, iter(never.wait, 1)))",
    "busy": "[pool.map(abs, range(100)) for _ in iter(int, 1)]",
}


@pytest.mark.parametrize("what", EXIT_WAITS)
def test_exit_with_threads_waiting_is_quick_and_quiet(interpreter, start, what):
    """Daemon threads may be anywhere when the interpreter goes; they hear of it or are stopped."""
    finished = interpreter(
        f"""
        import threading, time
        import shoal

        pool = shoal.Pool(2, start={start!r})
        never = threading.Event()
        begun = threading.Barrier(4)

        def wait():
            begun.wait()
            try:
                {EXIT_WAITS[what]}
            except shoal.PoolClosed:
                pass

        for _ in range(3):
            threading.Thread(target=wait, daemon=True).start()
        begun.wait()
        pool.apply(abs, (-1,)) if {what!r} in ("busy", "input that waits") else time.sleep(0.05)
        """
    )
    assert (finished.returncode, finished.out, finished.err) == (0, "", "")


def test_the_end_of_a_pool_may_wait_while_threads_wait_for_results(interpreter, start):
    """Making the errors of the open calls lets other threads run, as a first import does."""
    finished = interpreter(
        f"""
        import threading, time
        import shoal
        from shoal._pool import _engine

        made = _engine._terminated

        def slowly():
            time.sleep(0.1)
            return made()

        _engine._terminated = slowly
        pool = shoal.Pool(2, start={start!r})
        begun = threading.Barrier(4)

        def wait():
            begun.wait()
            try:
                pool.apply(time.sleep, (1000,))
            except shoal.PoolClosed:
                print("told")

        threads = [threading.Thread(target=wait) for _ in range(3)]
        for thread in threads:
            thread.start()
        begun.wait()
        time.sleep(0.05)
        pool.terminate()
        for thread in threads:
            thread.join()
        """
    )
    assert (finished.check(), finished.err) == ("told\n" * 3, "")


def test_exit_completes_the_futures_that_threads_wait_for(interpreter, start):
    finished = interpreter(
        f"""
        import sys, threading
        import shoal

        executor = shoal.Executor(2, start={start!r})
        futures = [executor.submit(pow, 2, n) for n in range(200)]

        def wait(who):
            assert [future.result() for future in futures] == [2 ** n for n in range(200)]
            sys.stdout.write("all ")

        for who in range(3):
            threading.Thread(target=wait, args=(who,)).start()
        """
    )
    assert finished.check().split() == ["all"] * 3
    assert finished.err == ""


def test_an_iterator_that_was_told_of_the_end_before_its_outcomes_were_given_up(interpreter):
    """A thread may ask between the two steps of terminate(): the pool's end, and giving up what is
    open. The second step must not deliver to an iterator that has raised PoolClosed.
    """
    finished = interpreter(
        """
        import time
        import shoal

        pool = shoal.Pool(1)
        results = pool.imap(time.sleep, [1000] * 10)
        pool._engine.client.end()
        try:
            next(results)
        except shoal.PoolClosed:
            print("closed")
        pool.terminate()
        print(list(results))
        """
    )
    assert finished.check().split() == ["closed", "[]"]
