# SPDX-License-Identifier: Apache-2.0
"""Drop-in locks, conditions, events and barriers: every import style, every start method, deaths.

Programs run with SHOAL_RUN=1, so they are what a user's program is under `shoal run`. What
CPython's own suites pin down is not repeated here: `make compat`.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from typing import Any

import pytest
import shoal
import shoal.multiprocessing as mp
from shoal._runtime._native import core
from shoal.errors import OwnerDied, OwnerDiedWarning

START_METHODS = ["fork", "spawn", "forkserver"]  # (joblib adds its own to those of multiprocessing)
FORK: Any = mp.get_context("fork")
# multiprocessing.Lock() and so on, by name, with what it needs.
KINDS = {
    "Lock": (),
    "RLock": (),
    "Semaphore": (2,),
    "BoundedSemaphore": (2,),
    "Condition": (),
    "Event": (),
    "Barrier": (2,),
}


@pytest.fixture
def program(interpreter):
    def run(source: str, *arguments: str, env: dict[str, str] | None = None):
        return interpreter(source, *arguments, env={"SHOAL_RUN": "1", **(env or {})}).check()

    return run


def test_every_import_style_gives_shoals_class_and_subclasses_stay_stock(program) -> None:
    program("""
        from multiprocessing import Lock, get_context
        import multiprocessing.synchronize as stock
        import multiprocessing as mp

        early = stock.Event
        context = get_context("spawn")
        made = [Lock(), mp.Lock(), context.Lock(), stock.Lock(ctx=context), early(ctx=context),
                mp.Condition(mp.Lock()), mp.Barrier(2), mp.BoundedSemaphore(3), mp.RLock()]
        for each in made:
            assert type(each).__module__ == "shoal._dropin._sync", each
            assert isinstance(each, getattr(stock, type(each).__name__))

        class Mine(stock.Lock):
            pass

        mine = Mine(ctx=context)
        assert type(mine).__mro__[1] is stock.Lock and mine.acquire()
        foreign = mp.Condition(mine)
        assert type(foreign) is stock.Condition  # its lock is not shoal's
    """)


@pytest.mark.parametrize("kind", KINDS)
def test_the_drop_in_module_gives_shoals_class_without_install(kind: str) -> None:
    made = getattr(mp, kind)(*KINDS[kind])
    assert isinstance(made, getattr(shoal, kind))
    assert isinstance(made, getattr(multiprocessing.synchronize, kind))
    with pytest.raises(RuntimeError, match="objects should only be shared between processes"):
        pickle.dumps(made)


def test_explain_counts_what_was_swapped(interpreter) -> None:
    result = interpreter(
        """
        import multiprocessing as mp
        import os

        os.environ["SHOAL_EXPLAIN"] = str(os.getpid())
        import shoal
        shoal.install()
        mp.Lock(), mp.Value("i")
        """,
        env={"SHOAL_RUN": "1"},
    )
    result.check()
    assert "swapped" in result.err and "multiprocessing.synchronize.Lock" in result.err


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_objects_reach_children_of_children(program, method: str) -> None:
    program(
        """
        import multiprocessing as mp
        import sys

        # Made anew by each fresh interpreter, before it unpickles its arguments.
        of_the_module = mp.get_context(sys.argv[1]).Lock()

        def check(lock, event, condition, semaphore, barrier, depth):
            assert type(lock).__module__ == "shoal._dropin._sync"
            with lock, condition:
                condition.notify()
            with of_the_module:
                semaphore.release()
            if depth:
                start(lock, event, condition, semaphore, barrier, depth - 1).join()
            else:
                event.set()
                barrier.wait()

        def start(*arguments):
            process = mp.get_context(sys.argv[1]).Process(target=check, args=arguments)
            process.start()
            return process

        if __name__ == "__main__":
            c = mp.get_context(sys.argv[1])
            made = c.Lock(), c.Event(), c.Condition(), c.Semaphore(0), c.Barrier(2)
            process = start(*made, 2)
            made[4].wait(60)
            process.join()
            assert process.exitcode == 0 and made[1].is_set() and made[3].get_value() == 3
        """,
        method,
    )


def test_modules_that_the_fork_server_preloads_may_make_locks(interpreter) -> None:
    (interpreter.folder / "with_a_lock.py").write_text(
        "import shoal.multiprocessing as mp\nlock = mp.get_context('forkserver').Lock()\n"
    )
    interpreter("""
        import shoal.multiprocessing as mp
        import with_a_lock

        def use(lock):
            with lock, with_a_lock.lock:
                pass

        if __name__ == "__main__":
            context = mp.get_context("forkserver")
            context.set_forkserver_preload(["with_a_lock"])
            for _ in range(2):
                process = context.Process(target=use, args=(context.Lock(),))
                process.start()
                process.join()
                assert process.exitcode == 0
    """).check()


def test_a_child_that_gets_many_objects_has_one_descriptor_more(program) -> None:
    program("""
        import multiprocessing as mp
        import os

        def count(locks, results):
            results.send(len(os.listdir("/proc/self/fd")))

        if __name__ == "__main__":
            for method in "spawn", "forkserver":
                context = mp.get_context(method)
                counts = []
                for number in 1, 500:
                    ours, theirs = context.Pipe(False)
                    locks = [context.Lock() for _ in range(number)]
                    process = context.Process(target=count, args=(locks, theirs))
                    process.start()
                    counts.append(ours.recv())
                    process.join()
                assert counts[0] == counts[1], counts
    """)


def hold(lock: Any, ready: Any) -> None:
    lock.acquire()
    ready.set()
    time.sleep(100)


def held_by_a_dead_process(lock: Any) -> int:
    """PAINS A2: a process takes the lock and is killed."""
    ready = FORK.Event()
    process = FORK.Process(target=hold, args=(lock, ready))
    process.start()
    assert ready.wait(60)
    assert lock.acquire(timeout=0.01) is False
    process.kill()
    process.join()
    return int(process.pid)


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_the_next_taker_of_a_dead_owners_lock_is_warned(kind: str) -> None:
    lock = getattr(FORK, kind)()
    pid = held_by_a_dead_process(lock)
    with pytest.warns(OwnerDiedWarning, match=f"process {pid} died while it had this {kind}"):
        assert lock.acquire(timeout=60)
    assert lock.owner_died
    lock.release()
    with lock:
        assert not lock.owner_died


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_a_lock_that_raises_is_not_held_afterwards(kind: str) -> None:
    lock = getattr(FORK, kind)(on_owner_death="raise")
    pid = held_by_a_dead_process(lock)
    with pytest.raises(OwnerDied, match="died while it had") as caught, lock:
        pytest.fail("the body ran")
    assert caught.value.pid == pid
    assert not lock.locked()
    assert pickle.loads(pickle.dumps(caught.value)).pid == pid
    with lock:
        assert not lock.owner_died


def test_a_warning_made_an_error_leaves_the_lock_free() -> None:
    lock = FORK.Lock()
    held_by_a_dead_process(lock)
    with pytest.raises(OwnerDiedWarning):  # warnings are errors in these tests
        lock.acquire()
    assert not lock.locked()


def test_a_condition_whose_lock_owner_died_still_hands_over() -> None:
    condition = FORK.Condition()
    held_by_a_dead_process(condition)
    with pytest.warns(OwnerDiedWarning), condition:
        assert condition.wait(0.01) is False


def test_a_notification_to_a_dead_waiter_goes_to_the_next() -> None:
    condition = FORK.Condition()
    dead = FORK.Process(target=wait_on, args=(condition,))
    dead.start()
    wait_for(lambda: condition.waiters == 1)
    living = FORK.Process(target=wait_on, args=(condition,))
    living.start()
    wait_for(lambda: condition.waiters == 2)
    os.kill(dead.pid, signal.SIGSTOP)
    with condition:
        condition.notify()  # the oldest one's
    dead.kill()
    dead.join()
    core.reap()
    living.join()
    assert living.exitcode == 0


def wait_on(condition: Any) -> None:
    with condition:
        condition.wait()


def wait_for(true: Any) -> None:
    while not true():
        time.sleep(0.001)


def test_a_dead_party_breaks_the_barrier() -> None:
    barrier = FORK.Barrier(3)
    process = FORK.Process(target=barrier.wait)
    process.start()
    wait_for(lambda: barrier.n_waiting == 1)
    process.kill()
    process.join()
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait()
    assert barrier.broken
    barrier.reset()
    assert not barrier.broken and barrier.n_waiting == 0


def test_a_barriers_action_runs_once_before_anybody_passes() -> None:
    done = FORK.Value("i", 0)
    barrier = FORK.Barrier(2, action=lambda: setattr(done, "value", done.value + 1))

    def both() -> None:
        for round in range(1, 100):
            barrier.wait()
            assert done.value == round
            barrier.wait
            again.wait()

    again = FORK.Barrier(2)
    process = FORK.Process(target=both)
    process.start()
    both()
    process.join()
    assert process.exitcode == 0


def test_a_failing_action_breaks_the_barrier() -> None:
    barrier = shoal.Barrier(1, action=lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        barrier.wait()
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait()


WAITS = {
    "Condition": lambda c: c.acquire() and c.wait(),
    "Barrier": lambda b: b.wait(),
    "Semaphore": lambda s: [s.acquire() for _ in range(3)],
    "Event": lambda e: e.wait(),
    "Lock": lambda lock: [lock.acquire() for _ in range(2)],
}


@pytest.mark.parametrize("kind", WAITS)
def test_ctrl_c_ends_each_wait(kind: str) -> None:
    waited_for = getattr(FORK, kind)(*KINDS[kind])
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        timer.start()
        WAITS[kind](waited_for)
    timer.join()
    if kind == "Barrier":  # it left as if it had never come
        assert waited_for.n_waiting == 0 and not waited_for.broken


@pytest.mark.parametrize("kind", WAITS)
def test_idle_waiting_costs_no_processor_time(kind: str, interpreter) -> None:
    interpreter(
        f"""
        import os
        import time
        import shoal.multiprocessing as mp

        context = mp.get_context("fork")
        waited_for = context.{kind}(*{KINDS[kind]!r})
        waits = {{
            "Condition": lambda c: c.acquire() and c.wait(),
            "Barrier": lambda b: b.wait(),
            "Semaphore": lambda s: [s.acquire() for _ in range(3)],
            "Event": lambda e: e.wait(),
            "Lock": lambda lock: [lock.acquire() for _ in range(2)],
        }}
        process = context.Process(target=waits["{kind}"], args=(waited_for,))
        process.start()

        def used():
            fields = open(f"/proc/{{process.pid}}/stat").read().rsplit(")", 1)[1].split()
            return int(fields[11]) + int(fields[12])

        time.sleep(0.5)
        before = used()
        time.sleep(2)
        ticks = used() - before  # of 10 ms
        process.kill()
        process.join()
        assert ticks <= 2, ticks
        """
    ).check()


@pytest.mark.skipif(
    sys.version_info < (3, 11), reason="the standard library lets it pass before 3.11"
)
def test_locks_of_a_fork_context_do_not_go_to_spawned_processes() -> None:
    lock = FORK.Lock()
    process = mp.get_context("spawn").Process(target=print, args=(lock,))
    with pytest.raises(RuntimeError, match="A SemLock created in a fork"):
        process.start()


def test_a_hundred_thousand_objects_leave_nothing(interpreter) -> None:
    interpreter(
        f"""
        import time
        import shoal.multiprocessing as mp
        from shoal._runtime._native import core

        context = mp.get_context("fork")

        def shared():
            core.reap()
            return core.arena_statistics()["blocks_shared"]

        def hold(ready):
            held = [context.Condition() for _ in range(1000)]
            ready.set()
            time.sleep(100)

        for _ in range(20_000):
            for kind, arguments in {KINDS!r}.items():
                getattr(context, kind)(*arguments)
        assert shared() == 0
        kept = [context.Lock() for _ in range(1000)]
        for _ in range(3):
            ready = context.Event()
            process = context.Process(target=hold, args=(ready,))
            process.start()
            assert ready.wait(60)
            process.kill()
            process.join()
            del ready, process
        assert shared() == 1000
        del kept
        assert shared() == 0
        """
    ).check()


@pytest.mark.parametrize("kind", [mp.Semaphore, shoal.Semaphore, shoal.BoundedSemaphore])
def test_a_wrong_number_of_permits_is_told_and_changes_nothing(kind):
    for value, error in ((-1, OSError), (2**31, OverflowError), (0.5, TypeError), ("x", TypeError)):
        with pytest.raises(error):
            kind(value)
    semaphore = kind(2)
    semaphore.acquire()
    for count, error in ((0, ValueError), (-1, ValueError), (2**32, OverflowError)):
        with pytest.raises(error):
            semaphore.release(count)
    assert semaphore.get_value() == 1


def test_a_timeout_that_is_no_number_is_an_error_without_waiting_too():
    for call in (mp.Lock().acquire, mp.Semaphore().acquire, mp.Queue().get):
        with pytest.raises(TypeError, match="real number"):
            call(False, "x")
        with pytest.raises(TypeError, match="real number"):
            call(True, "x")
