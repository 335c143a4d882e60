# SPDX-License-Identifier: Apache-2.0
"""One pool, or one executor, used by many threads at once.

Payloads check themselves: a task gets who asked and what for, and returns both with a digest, so
that a result which meets the wrong caller, or twice the same one, is seen.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import queue
import random
import signal
import threading
import zlib
from concurrent.futures import CancelledError

import pytest
import shoal
import tasks
from pool_kinds import SHOAL, WATCHDOG, end, make_executor, make_pool

pytestmark = [WATCHDOG, pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")]

THREADS = 6


@pytest.fixture(params=SHOAL, scope="module")
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def pool(kind):
    """One pool for all tests that leave it as it was."""
    pool = make_pool(kind)
    yield pool
    end(pool)


@pytest.fixture(scope="module")
def executor(kind):
    executor = make_executor(kind)
    yield executor
    executor.shutdown()


@pytest.fixture
def own_executor():
    with shoal.Executor(2) as executor:
        yield executor


def sealed(who, number, size=0):
    """What a task gets: three facts and a body that follows from them."""
    return who, number, bytes([who & 255, number & 255]) * size


def seal(item):
    who, number, body = item
    return who, number, zlib.crc32(body)


def star_seal(who, number, body):
    return seal((who, number, body))


def expected(who, number, size=0):
    return seal(sealed(who, number, size))


def run_in_threads(bodies):
    """Runs all at once, and raises the first error of any of them."""
    failures = []
    barrier = threading.Barrier(len(bodies))

    def run(body):
        try:
            barrier.wait()
            body()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(body,), daemon=True) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


# ---- A mix of everything -------------------------------------------------------------------------


def use_apply(pool, who, number, size):
    assert pool.apply(seal, (sealed(who, number, size),)) == expected(who, number, size)


def use_apply_async(pool, who, number, size):
    heard = queue.SimpleQueue()
    result = pool.apply_async(star_seal, sealed(who, number, size), callback=heard.put)
    silent = pool.apply_async(seal, (sealed(who, number + 1, size),))
    assert silent.get() == expected(who, number + 1, size)
    assert heard.get() == result.get() == expected(who, number, size)


def items_of(who, number, size):
    return [sealed(who, number + i, size) for i in range(40)]


def answers_of(who, number, size):
    return [expected(who, number + i, size) for i in range(40)]


def use_map(pool, who, number, size):
    chunk = 1 + number % 7
    found = pool.map(seal, items_of(who, number, size), chunk)
    assert found == answers_of(who, number, size)
    assert pool.starmap(star_seal, items_of(who, number, size), chunk) == found


def use_map_async(pool, who, number, size):
    heard = queue.SimpleQueue()
    result = pool.map_async(seal, items_of(who, number, size), callback=heard.put)
    assert result.get() == answers_of(who, number, size)
    assert heard.get() == result.get()


def use_imap(pool, who, number, size):
    items = items_of(who, number, size)
    sized = pool.imap(seal, items)
    unsized = pool.imap(seal, iter(items), 1 + number % 3)
    unordered = pool.imap_unordered(seal, (item for item in items), buffersize=5)
    wanted = answers_of(who, number, size)
    assert list(zip(sized, unsized)) == list(zip(wanted, wanted))
    assert sorted(unordered) == sorted(wanted)


def use_errors(pool, who, number, size):
    with pytest.raises(ValueError) as raised:
        pool.apply(tasks.raise_, (ValueError(who, number),))
    assert raised.value.args == (who, number)


def use_cancel(pool, who, number, size):
    """A cancelled task has one outcome too: its result, or that it was cancelled."""
    results = [pool.apply_async(seal, (sealed(who, number + i, size),)) for i in range(10)]
    for result in results[::2]:
        result.cancel()
    for i, result in enumerate(results):
        try:
            assert result.get() == expected(who, number + i, size)
        except CancelledError:
            assert i % 2 == 0


POOL_USES = (
    use_apply,
    use_apply_async,
    use_map,
    use_map_async,
    use_imap,
    use_errors,
    use_cancel,
)


def user(pool, uses, who, rounds):
    chance = random.Random(who)

    def body():
        for _ in range(rounds):
            use = chance.choice(uses)
            use(pool, who, chance.randrange(10_000), chance.choice((0, 1, 100, 40_000)))

    return body


def observer(pool, done):
    def body():
        while not done.is_set():
            statistics = pool.statistics()
            assert 0 <= statistics["workers"] <= 2
            assert statistics["tasks"] == sum(seat["tasks"] for seat in statistics["per_worker"])
            assert len(pool.worker_pids()) <= 2
            repr(pool)

    return body


def run_users_and_observer(pool, uses, rounds):
    done = threading.Event()
    left = [None] * THREADS

    def counted(body):
        try:
            body()
        finally:
            left.pop()
            if not left:
                done.set()

    users = [user(pool, uses, who, rounds) for who in range(THREADS)]
    bodies = [lambda body=body: counted(body) for body in users]
    run_in_threads([*bodies, observer(pool, done)])


def test_each_thread_of_a_pool_gets_its_own_results(pool):
    run_users_and_observer(pool, POOL_USES, 25)


def use_submit(executor, who, number, size):
    future = executor.submit(seal, sealed(who, number, size))
    assert future.result() == expected(who, number, size)


def use_executor_map(executor, who, number, size):
    items = items_of(who, number, size)
    found = executor.map(seal, items, chunksize=1 + number % 5)
    limited = executor.options(timeout=60, retries=1).map(seal, iter(items), buffersize=7)
    wanted = answers_of(who, number, size)
    assert list(zip(found, limited)) == list(zip(wanted, wanted))


def use_completed(executor, who, number, size):
    futures = {
        executor.submit(seal, sealed(who, number + i, size)): expected(who, number + i, size)
        for i in range(10)
    }
    found = {future: future.result() for future in concurrent.futures.as_completed(futures)}
    assert found == futures
    assert concurrent.futures.wait(futures).not_done == set()


def use_done_callbacks(executor, who, number, size):
    heard = queue.SimpleQueue()
    future = executor.submit(star_seal, *sealed(who, number, size))
    future.add_done_callback(heard.put)
    assert heard.get() is future
    assert future.result() == expected(who, number, size)


def use_future_cancel(executor, who, number, size):
    futures = [executor.submit(seal, sealed(who, number + i, size)) for i in range(10)]
    cancelled = {i for i in range(0, 10, 2) if futures[i].cancel()}
    for i, future in enumerate(futures):
        if i in cancelled:
            with pytest.raises(CancelledError):
                future.result()
        else:
            assert future.result() == expected(who, number + i, size)


EXECUTOR_USES = (
    use_submit,
    use_executor_map,
    use_completed,
    use_done_callbacks,
    use_future_cancel,
)


def test_each_thread_of_an_executor_gets_its_own_results(executor):
    run_users_and_observer(executor, EXECUTOR_USES, 25)


def test_threads_send_functions_of_their_own(pool):
    """Definitions are made by all threads at once, and are told apart."""

    def body(who):
        def make(number):
            return lambda x: (who, number, x)

        for number in range(15):
            function = make(number)
            assert pool.map(function, range(3)) == [(who, number, x) for x in range(3)]
            assert pool.apply(lambda: (who, function(0))) == (who, (who, number, 0))

    run_in_threads([lambda who=who: body(who) for who in range(THREADS)])


# ---- Several threads wait for one thing ----------------------------------------------------------


def test_functions_that_threads_send_for_the_first_time_are_not_mistaken(kind):
    """Each thread has functions of its own, none of which the pool has seen."""

    def make(number):
        return lambda: number

    for _ in range(10):
        with make_pool(kind, 2) as pool:
            start = threading.Barrier(THREADS)

            def body(first, start=start, pool=pool):
                mine = [make(first + i) for i in range(20)]
                start.wait()
                sent = [pool.apply_async(function) for function in mine]
                assert [each.get() for each in sent] == [function() for function in mine]

            run_in_threads([lambda first=i * 100: body(first) for i in range(THREADS)])


def test_one_result_may_be_waited_for_by_many_threads(pool):
    for number in range(30):
        heard = []
        single = pool.apply_async(seal, (sealed(1, number, 10),), callback=heard.append)
        many = pool.map_async(seal, items_of(2, number, 10), 3, callback=heard.append)

        def body(single=single, many=many, number=number):
            assert single.get() == expected(1, number, 10)
            assert many.get() == answers_of(2, number, 10)
            assert single.successful() and many.successful()

        run_in_threads([body] * THREADS)
        assert sorted(map(len, heard)) == [3, 40]


def test_one_future_may_be_waited_for_by_many_threads(executor):
    for number in range(30):
        future = executor.submit(seal, sealed(1, number, 10))
        ways = (
            lambda future=future: future.result(),
            lambda future=future: concurrent.futures.wait([future]).done.pop().result(),
            lambda future=future: next(concurrent.futures.as_completed([future])).result(),
        )
        found = queue.SimpleQueue()
        run_in_threads([lambda way=way: found.put(way()) for way in ways * 2])
        assert [found.get() for _ in range(6)] == [expected(1, number, 10)] * 6


@pytest.mark.parametrize("method", ["imap", "imap_unordered"])
@pytest.mark.parametrize("sized", [True, False])
def test_an_iterator_of_results_shared_by_threads_gives_each_once(pool, method, sized):
    items = range(2000)
    results = getattr(pool, method)(tasks.square, items if sized else iter(items))
    found = queue.SimpleQueue()

    def body():
        for value in results:
            found.put(value)

    run_in_threads([body] * THREADS)
    assert sorted(found.get() for _ in range(found.qsize())) == [x * x for x in items]


def test_cancel_by_one_thread_ends_the_wait_of_another(pool, tmp_path):
    for number in range(3):
        begun = str(tmp_path / f"begun{number}")
        result = pool.apply_async(tasks.announce_and_wait, (begun, "/never/there"))

        def waiter(result=result):
            with pytest.raises(CancelledError):
                result.get()

        def canceller(result=result, begun=begun):
            tasks.wait_for(begun)
            assert result.cancel()

        run_in_threads([waiter, waiter, canceller])


# ---- More tasks than the pool has places for -----------------------------------------------------


def test_futures_beyond_the_pools_places_can_be_cancelled_and_waited_for(kind, tmp_path):
    """Such a task waits in this process, and gets its place from a thread that collects."""
    go = str(tmp_path / "go")
    executor = make_executor(kind)
    try:
        blocked = [executor.submit(tasks.wait_for, go) for _ in range(2)]
        futures = [executor.submit(tasks.echo, number) for number in range(6000)]
        assert futures[-1].cancel() and futures[-1].cancelled()
        tasks.touch(go)
        more = [executor.submit(tasks.echo, number) for number in range(6000, 9000)]
        late = more[-1].cancel()
        assert [future.result() for future in futures[:-1]] == list(range(5999))
        assert [future.result() for future in more[:-1]] == list(range(6000, 8999))
        assert late == more[-1].cancelled()
        assert [future.result() for future in blocked] == [None, None]
    finally:
        executor.shutdown()


def test_a_place_taken_while_arguments_are_pickled_is_waited_for(kind, tmp_path):
    """Pickling runs Python code, which lets other threads have the last places."""
    go = str(tmp_path / "go")
    executor = make_executor(kind)
    try:
        for _ in range(2):
            executor.submit(tasks.wait_for, go)
        sent = []

        class SendsOthers:
            def __reduce__(self):
                for number in range(5000):
                    sent.append(executor.submit(tasks.echo, number))
                return tasks.echo, ("arrived",)

        future = executor.submit(tasks.echo, SendsOthers())
        tasks.touch(go)
        assert future.result() == "arrived"
        assert [other.result() for other in sent] == list(range(5000))
    finally:
        executor.shutdown()


# ---- Callbacks -----------------------------------------------------------------------------------


def test_callbacks_may_submit_again(kind):
    done = threading.Event()
    found = []

    with make_pool(kind) as pool:

        def again(value):
            found.append(value)
            if value < 300:
                pool.apply_async(tasks.add, (value, 1), callback=again, error_callback=again)
            else:
                done.set()

        pool.apply_async(tasks.add, (0, 0), callback=again)
        run_in_threads([lambda: use_map(pool, 1, 1, 10)] * 2 + [done.wait])
    assert found == list(range(301))


def test_done_callbacks_may_submit_again(kind):
    done = threading.Event()
    found = []
    executor = make_executor(kind)

    def again(future):
        found.append(future.result())
        if found[-1] < 300:
            executor.submit(tasks.add, found[-1], 1).add_done_callback(again)
        else:
            done.set()

    executor.submit(tasks.add, 0).add_done_callback(again)
    done.wait()
    executor.shutdown()
    assert found == list(range(301))


def test_a_callback_may_wait_for_other_results(kind):
    """Even when their news has come together with its own."""
    with make_pool(kind) as pool:
        for _ in range(30):
            results = []
            sent = threading.Event()
            told = queue.SimpleQueue()

            def gather(value, results=results, sent=sent, told=told):
                sent.wait()
                told.put([value, *(result.get() for result in results)])

            first = pool.apply_async(tasks.echo, (0,), callback=gather)
            results.extend(pool.apply_async(tasks.echo, (i,)) for i in range(1, 20))
            sent.set()
            assert told.get() == list(range(20))
            assert first.get() == 0


def test_a_result_is_ready_when_its_callback_has_returned(kind):
    """As in the standard library: what a callback has done is there for whoever has waited."""
    with make_pool(kind) as pool:
        for send in (
            lambda callback: pool.apply_async(tasks.echo, (1,), callback=callback),
            lambda callback: pool.map_async(tasks.echo, [1, 2], callback=callback),
        ):
            entered, go, done = threading.Event(), threading.Event(), []

            def callback(value, entered=entered, go=go, done=done):
                entered.set()
                go.wait()
                done.append(value)

            result = send(callback)
            entered.wait()
            assert not result.ready()
            with pytest.raises(multiprocessing.TimeoutError):
                result.get(timeout=0.01)
            go.set()
            assert [result.get()] == done


def test_callbacks_do_not_run_in_threads_that_only_look(kind, wait_until):
    """They may hold a lock that the callback takes."""
    lock = threading.Lock()
    heard = []

    def callback(_):
        with lock:
            heard.append(threading.current_thread())

    with make_pool(kind) as pool:
        with lock:
            result = pool.apply_async(tasks.echo, (1,), callback=callback)
            wait_until(lambda: pool.statistics()["tasks"] == 1)
            assert [result.ready() for _ in range(1000)] == [False] * 1000
        result.wait()
    executor = make_executor(kind)
    with lock:
        future = executor.submit(tasks.echo, 1)
        future.add_done_callback(callback)
        wait_until(lambda: executor.statistics()["tasks"] == 1)
        wait_until(future.done)
        assert future.result() == 1
    executor.shutdown()
    assert len(heard) == 2 and heard[1].name == "shoal-collector"


def test_a_lost_collector_is_told_of_and_goes_on(own_executor, capsys):
    """Others count on that thread, whatever goes wrong in it once."""
    executor = own_executor
    collect, failures = executor._engine.feed_jobs, [OSError("no more processes")]

    def fails_once():
        if failures and threading.current_thread().name == "shoal-collector":
            raise failures.pop()
        collect()

    executor._engine.feed_jobs = fails_once
    future = executor.submit(tasks.echo, 5)
    assert concurrent.futures.wait([future]).done == {future}
    assert future.result() == 5 and not failures
    assert "no more processes" in capsys.readouterr().err


# ---- Ends, from another thread -------------------------------------------------------------------


def waits_of(pool):
    """Ways to wait for what never ends."""
    for_ever = tasks.sleep_for_ever
    return (
        lambda: pool.apply(for_ever),
        lambda: pool.apply_async(for_ever).get(),
        lambda: pool.apply_async(for_ever, callback=print).get(),
        lambda: pool.map(tasks.wait_for, ["/never/there"] * 50, 1),
        lambda: pool.map_async(tasks.wait_for, ["/never/there"] * 50).get(),
        lambda: list(pool.imap(tasks.wait_for, ["/never/there"] * 50)),
        lambda: list(pool.imap(tasks.wait_for, iter(["/never/there"] * 50))),
        lambda: list(pool.imap_unordered(tasks.wait_for, ["/never/there"] * 50)),
    )


def test_terminate_ends_every_wait_of_other_threads(kind, wait_until):
    pool = make_pool(kind)
    inside = queue.SimpleQueue()

    def waiter(wait):
        inside.put(None)
        with pytest.raises(shoal.PoolClosed):
            wait()

    def ender():
        for _ in waits_of(pool):
            inside.get()
        wait_until(lambda: any(seat["running"] for seat in pool.statistics()["per_worker"]))
        pool.terminate()

    run_in_threads([*(lambda w=w: waiter(w) for w in waits_of(pool)), ender, pool_joiner(pool)])


def pool_joiner(pool):
    """Joins while others terminate."""

    def body():
        while True:
            try:
                return pool.join()
            except ValueError:  # still running
                pass

    return body


def test_terminate_and_join_by_many_threads_at_once(kind):
    for _ in range(3):
        pool = make_pool(kind)
        results = [pool.apply_async(tasks.echo, (i,)) for i in range(100)]
        run_in_threads([pool.terminate] * 3 + [pool_joiner(pool)] * 3)
        for i, result in enumerate(results):
            try:
                assert result.get() == i
            except shoal.PoolClosed:
                pass


def test_close_by_one_thread_lets_all_that_was_sent_end(kind):
    pool = make_pool(kind)
    ready = threading.Barrier(THREADS + 1)

    def sender(who):
        sent = []
        ready.wait()
        try:
            while True:
                sent.append(pool.apply_async(seal, (sealed(who, len(sent), 5),)))
        except shoal.PoolClosed:
            pass
        for number, result in enumerate(sent):
            assert result.get() == expected(who, number, 5)

    def closer():
        ready.wait()
        pool.apply(tasks.echo, (0,))
        pool.close()
        pool.join()

    run_in_threads([*(lambda who=who: sender(who) for who in range(THREADS)), closer])


def test_every_future_that_was_given_before_a_shutdown_is_completed(kind):
    for _ in range(5):
        executor = make_executor(kind)

        def sender(who, executor=executor):
            sent = []
            try:
                while True:
                    sent.append(executor.submit(seal, sealed(who, len(sent), 5)))
            except shoal.PoolClosed:
                pass
            for number, future in enumerate(sent):
                assert future.result() == expected(who, number, 5)

        def ender(executor=executor):
            try:
                executor.submit(tasks.echo, 0).result()
            except shoal.PoolClosed:
                pass  # the other ender was faster
            executor.shutdown()

        run_in_threads([*(lambda who=who: sender(who) for who in range(3)), ender, ender])


def test_pools_are_made_used_and_ended_by_many_threads_at_once():
    def body(who):
        for number in range(4):
            with shoal.Pool(1) as pool:
                use_map(pool, who, number, 3)
            with shoal.Executor(1) as executor:
                use_submit(executor, who, number, 3)

    run_in_threads([lambda who=who: body(who) for who in range(4)])


# ---- Deaths and forks meanwhile ------------------------------------------------------------------


def test_workers_killed_under_many_threads_cost_only_what_they_ran(kind):
    done = threading.Event()
    left = [None] * 4
    with make_pool(kind) as pool:

        def user(who):
            try:
                for number in range(0, 400, 40):
                    found = pool.map(seal, items_of(who, number, 20), 1, retries=30)
                    assert found == answers_of(who, number, 20)
                    try:
                        assert pool.apply(seal, (sealed(who, number),)) == expected(who, number)
                    except shoal.WorkerDied as death:
                        assert death.signal == signal.SIGKILL
            finally:
                left.pop()
                if not left:
                    done.set()

        def killer():
            chance = random.Random(7)
            while not done.is_set():
                for pid in pool.worker_pids()[:1]:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        pass
                done.wait(chance.random() * 0.05)

        run_in_threads([*(lambda who=who: user(who) for who in range(4)), killer])
        assert pool.map(tasks.square, range(100)) == [x * x for x in range(100)]


def child_says(body):
    """Forks, runs `body` in the child, and returns what the child's exit status says."""
    pid = os.fork()
    if pid == 0:
        code = 9
        try:
            code = body()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_forks_in_one_thread_while_others_wait_harm_neither(kind):
    """The child has none of the threads, in whatever they were; the parent has all of them."""
    done = threading.Event()
    with make_pool(kind) as pool:

        def use_in_child():
            for use in (
                lambda: pool.apply(abs, (1,)),
                lambda: pool.imap(abs, [1]),
                pool.statistics,
            ):
                try:
                    use()
                    return 1
                except shoal.ForkedPool:
                    pass
            pool.terminate()
            return 0

        def make_in_child():
            with shoal.Pool(1) as own:
                return 0 if own.apply(tasks.square, (3,)) == 9 else 1

        def forker():
            try:
                for _ in range(8):
                    assert child_says(use_in_child) == 0
                    assert child_says(make_in_child) == 0
            finally:
                done.set()

        def waiter(who):
            number = 0
            while not done.is_set():
                number += 40
                use_apply_async(pool, who, number, 3)
                use_imap(pool, who, number, 3)
                use_map(pool, who, number, 3)

        run_in_threads([*(lambda who=who: waiter(who) for who in range(3)), forker])
