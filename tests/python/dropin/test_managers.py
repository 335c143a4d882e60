# SPDX-License-Identifier: Apache-2.0
"""The drop-in's managers: what the standard library's do, without a server until one is needed.

Programs marked `both` run with the standard library too, and must print the same.
"""

from __future__ import annotations

import sys
from typing import Any

import pytest

METHODS = ["fork", "spawn", "forkserver"]


@pytest.fixture
def both(interpreter: Any) -> Any:
    """Runs a program that imports `multiprocessing as mp` on the standard library and on shoal."""

    def run(program: str, *arguments: str) -> str:
        stock = interpreter(program, *arguments).check()
        shoal = interpreter(
            f"import shoal; shoal.install()\n{_dedent(program)}", *arguments
        ).check()
        assert shoal == stock
        return str(shoal)

    return run


def _dedent(program: str) -> str:
    import textwrap

    return textwrap.dedent(program)


def test_proxies_look_and_behave_as_the_stock_ones(both: Any) -> None:
    both(
        """
        import copy, re, sys
        import multiprocessing as mp
        from multiprocessing import managers

        def show(value):
            print(re.sub("0x[0-9a-f]+", "0x", repr(value)))

        if __name__ == "__main__":
            with mp.Manager() as m:
                d, l, n = m.dict(a=1), m.list([3, 1, 2]), m.Namespace(x=1)
                v, a, q = m.Value("i", 7), m.Array("d", [1, 2]), m.Queue(3)
                locks = [m.Lock(), m.RLock(), m.Semaphore(2), m.BoundedSemaphore(), m.Condition()]
                others = [m.Event(), m.Barrier(2), m.JoinableQueue()]
                for proxy in [d, l, n, v, a, q] + locks + others:
                    show(proxy)
                    print(type(proxy).__name__, isinstance(proxy, managers.BaseProxy))
                for proxy, kind in ((d, "DictProxy"), (l, "ListProxy"), (n, "NamespaceProxy"),
                                    (v, "ValueProxy"), (a, "ArrayProxy")):
                    print(isinstance(proxy, getattr(managers, kind)), str(proxy))
                print(d._getvalue(), l._getvalue(), n._getvalue(), v._getvalue(), a._getvalue())
                print(copy.deepcopy(d), copy.deepcopy(l), type(copy.deepcopy(d)))
                print(d._callmethod("get", ("a",)), l._callmethod("__len__"), v._callmethod("get"))
                try:
                    d._callmethod("nowhere")
                except managers.RemoteError as error:
                    print("RemoteError", "not in exposed" in str(error))
                print(d.keys(), d.values(), d.items(), list(d), type(d.keys()))
                print(d == d, d == m.dict(a=1), len({d, l}), hash(d) == hash(d))
                print(l[:], l[::-1], l + [1], l * 2, 2 in l, l.index(1), len(l))
                l += [9]; l *= 2; l.sort(); l.reverse(); l.remove(9); l.insert(0, "i"); del l[1]
                print(l[:], l.pop(), l.pop(0), l.count(1), list(reversed(l)))
                v.value += 1; v.set(v.get() + 1); print(v.value, v)
                a[0] = 5; print(a[0], a[:], len(a), list(a))
                for bad in (lambda: a.__setitem__(0, "x"), lambda: a[9], lambda: l[9],
                            lambda: d["z"], lambda: n.z, lambda: l.remove(99),
                            lambda: d.pop("z"), lambda: l.pop(99)):
                    try:
                        bad()
                    except Exception as error:
                        print(type(error).__name__)
                for make in (lambda: m.dict(1), lambda: m.list(1), lambda: m.Array("z", [1])):
                    try:
                        make()
                    except managers.RemoteError:
                        print("RemoteError")
                it = iter(d); d["new"] = 1
                try:
                    next(it)
                except RuntimeError as error:
                    print(error)
                print(d.setdefault("s", 5), d.popitem(), d.copy(), "a" in d, d.get("q", 8))
                d["list"] = [1]; d["list"].append(2); print(d["list"], type(d["list"]))
        """
    )


def test_locks_queues_and_their_errors(both: Any) -> None:
    both(
        """
        import multiprocessing as mp
        import queue, threading

        def error_of(call):
            try:
                return call()
            except Exception as error:
                return type(error).__name__

        if __name__ == "__main__":
            with mp.Manager() as m:
                lock, rlock, sem, bound = m.Lock(), m.RLock(), m.Semaphore(1), m.BoundedSemaphore()
                print(lock.acquire(), lock.acquire(False), lock.acquire(True, 0.01))
                print(lock.acquire(timeout=0.01))
                print(lock.release(), error_of(lock.release))
                with lock: print(lock.acquire(blocking=False))
                print(rlock.acquire(), rlock.acquire(), rlock.release(), rlock.release())
                print(error_of(rlock.release))
                print(sem.acquire(), sem.acquire(False), sem.release(), error_of(bound.release))
                event = m.Event()
                print(event.is_set(), event.wait(0.01), event.set(), event.wait())
                print(event.clear(), event.is_set())
                condition = m.Condition()
                print(error_of(condition.notify), error_of(lambda: condition.wait(0.01)))
                with condition:
                    print(condition.wait(0.01), condition.notify(), condition.notify_all())
                    print(condition.wait_for(lambda: True), condition.wait_for(lambda: 0, 0.01))
                own = m.Condition(m.Lock())
                with own: print(own.wait(0.01))
                barrier = m.Barrier(1)
                print(barrier.parties, barrier.n_waiting, barrier.broken, barrier.wait())
                barrier.abort(); print(barrier.broken, error_of(barrier.wait))
                barrier.reset(); print(barrier.broken)
                q = m.Queue(2)
                q.put(1); q.put([2], True, 1); print(q.full(), q.qsize())
                print(error_of(lambda: q.put(3, False)), error_of(lambda: q.put(3, timeout=0.01)))
                print(q.get(), q.get_nowait(), error_of(lambda: q.get(False)))
                print(error_of(lambda: q.get(timeout=0.01)), q.empty())
                j = m.JoinableQueue(); j.put(1); j.get(); j.task_done()
                print(j.join(), error_of(j.task_done))
        """
    )


@pytest.mark.parametrize("method", METHODS)
def test_between_processes(both: Any, method: str) -> None:
    both(
        """
        import sys
        import multiprocessing as mp

        def work(m, d, l, n, v, a, q, lock, condition, barrier):
            for i in range(20):
                with lock:
                    v.value += 1
            l.append(len(d)); d["child"] = a[1]; n.x = "child"; a[0] = 9
            d["nested"]["deep"].append("child")
            if m is not None:  # the standard library can give a manager to forks only
                d["made"] = m.list(["in the child"])
            with condition:
                condition.notify_all()
            barrier.wait()
            q.put("done")

        if __name__ == "__main__":
            ctx = mp.get_context(sys.argv[1])
            with ctx.Manager() as m:
                d, l, n, v = m.dict(), m.list(), m.Namespace(), m.Value("i", 0)
                a, q, lock = m.Array("i", [1, 2]), m.Queue(), m.Lock()
                condition, barrier = m.Condition(), m.Barrier(3)
                d["nested"] = m.dict(deep=m.list())
                args = (m if sys.argv[1] == "fork" else None, d, l, n, v, a, q, lock)
                args += (condition, barrier)
                processes = [ctx.Process(target=work, args=args) for _ in range(2)]
                with condition:
                    for p in processes: p.start()
                    print(condition.wait(60))
                barrier.wait()
                for p in processes: p.join(); print(p.exitcode)
                print(q.get(), q.get(), v.value, len(l), n.x, a[:], d["child"])
                print(d["nested"]["deep"][:], str(d.get("made")))
                with ctx.Pool(2) as pool:
                    print(sorted(pool.starmap(d.get, [("child", i) for i in range(3)])))
        """,
        method,
    )


def test_what_needs_a_server_gets_one(both: Any) -> None:
    both(
        """
        import multiprocessing as mp
        from multiprocessing.managers import BaseManager, SyncManager

        class Counter:
            def __init__(self): self.n = 0
            def up(self): self.n += 1; return self.n

        def hello(ns): ns.greeting = "hello"

        class Mine(SyncManager): pass
        class Base(BaseManager): pass

        def child(address):
            m = Base(address, b"key"); m.connect()
            print(m.Counter().up(), flush=True)

        SyncManager.register("Counter", Counter)
        Mine.register("Counter", Counter)
        Base.register("Counter", Counter)

        if __name__ == "__main__":
            with mp.Manager() as m:
                c = m.Counter()
                print(c.up(), c.up(), m.list([1])[:], m._process is not None, m.address is not None)
            print(m._process.exitcode)
            with Mine() as m:
                print(m.Counter().up(), m.dict(a=1).copy(), type(m) is Mine)
            with Base(authkey=b"key") as m:
                p = mp.Process(target=child, args=(m.address,)); p.start(); p.join()
            with mp.Manager() as m:
                other, ns = SyncManager(), m.Namespace()
                other.start(hello, (ns,))
                print(ns.greeting)
                other.shutdown()
                pool = m.Pool(2)
                print(pool.map(abs, [-1, 2]), pool.apply(len, ("abc",)))
                pool.terminate()
            address = SyncManager(("127.0.0.1", 0), b"key")
            address.start(); print(address.address[0], address.list([1]).pop()); address.shutdown()
        """
    )


def test_the_life_of_a_manager(both: Any) -> None:
    both(
        """
        import multiprocessing as mp
        from multiprocessing.managers import SyncManager

        def error_of(call):
            try:
                return call()
            except Exception as error:
                return type(error).__name__

        if __name__ == "__main__":
            m = SyncManager()
            print(error_of(lambda: m.list()), hasattr(m, "shutdown"), m.address)
            m.start()
            print(error_of(m.start), m.list([1])[:])
            print(m.shutdown(), m.join(), error_of(lambda: m.list()))
            m = SyncManager()
            with m: print(m.dict(a=1).copy())
            with SyncManager(authkey=b"x", serializer="pickle", ctx=mp.get_context("spawn")) as m:
                print(m.dict(a=1).copy())
            print(error_of(lambda: SyncManager().start(5)))
        """
    )


def test_what_a_manager_made_keeps_the_manager(both: Any) -> None:
    both(
        """
        import gc
        import multiprocessing as mp

        if __name__ == "__main__":
            queue, values = mp.Manager().Queue(), mp.Manager().list([1])
            gc.collect()
            process = mp.Process(target=queue.put, args=("x",))
            process.start(); process.join()
            print(queue.get(timeout=60), values[:], type(queue._manager).__name__)
            manager = mp.Manager()
            queue = manager.Queue()
            manager.shutdown()
            print(queue._manager is manager)
        """
    )


def test_no_process_and_no_round_trip(interpreter: Any) -> None:
    result = interpreter(
        """
        import multiprocessing as mp
        import shoal; shoal.install()

        if __name__ == "__main__":
            with mp.Manager() as m:
                d = m.dict(a=1)
                print(d["a"], m._process, mp.active_children(), m._number_of_objects())
                del d
                print(m._number_of_objects(), type(m).__mro__[1].__module__)
        """
    )
    assert result.check() == "1 None [] 1\n0 multiprocessing.managers\n"


@pytest.mark.parametrize("method", METHODS)
def test_who_waits_in_a_queue_goes_on_when_the_manager_shuts_down(
    interpreter: Any, method: str
) -> None:
    """As with the standard library, whose clients get EOFError: nobody waits for ever."""
    result = interpreter(
        """
        import sys, time
        import shoal.multiprocessing as mp

        def work(q, ready):
            ready.set()
            try:
                q.get()
            except Exception as error:
                print(type(error).__name__, flush=True)

        if __name__ == "__main__":
            ctx = mp.get_context(sys.argv[1])
            with ctx.Manager() as m:
                q, ready = m.Queue(), m.Event()
                p = ctx.Process(target=work, args=(q, ready))
                p.start()
                ready.wait()
                time.sleep(0.1)
            p.join()
            print(p.exitcode)
        """,
        method,
    )
    assert result.check() == "QueueShutDown\n0\n"


def test_a_lock_whose_holder_died_can_be_released_once_by_anybody(both: Any) -> None:
    both(
        """
        import multiprocessing as mp
        import warnings

        def take(lock): lock.acquire()

        if __name__ == "__main__":
            warnings.simplefilter("ignore")
            with mp.Manager() as m:
                lock = m.Lock()
                p = mp.Process(target=take, args=(lock,)); p.start(); p.join()
                print(lock.release())
                try:
                    lock.release()
                except RuntimeError as error:
                    print(error)
        """
    )


def test_under_shoal_run(interpreter: Any, tmp_path: Any) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        _dedent(
            """
            from multiprocessing import Manager, Process

            def work(d): d["child"] = 1

            if __name__ == "__main__":
                with Manager() as m:
                    d = m.dict()
                    p = Process(target=work, args=(d,)); p.start(); p.join()
                    print(d, m._process)
            """
        )
    )
    result = interpreter(
        f"""
        import subprocess, sys
        done = subprocess.run(
            [sys.executable, "-m", "shoal", "run", "--explain", {str(program)!r}],
            capture_output=True, text=True,
        )
        print(done.stdout, end="")
        print("SyncManager" in done.stderr)
        """
    )
    assert result.check() == "{'child': 1} None\nTrue\n"


@pytest.mark.skipif(sys.version_info < (3, 14), reason="managers have sets from 3.14 on")
def test_sets(both: Any) -> None:
    both(
        """
        import multiprocessing as mp

        if __name__ == "__main__":
            with mp.Manager() as m:
                s = m.set("ab")
                s.add("c"); s |= {"d"}; s -= {"a"}
                print(sorted(s), len(s), "b" in s, sorted(s | {"z"}), sorted({"z", "b"} & s))
        """
    )


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="managers have sets from 3.14 on")
def test_no_sets(both: Any) -> None:
    both(
        """
        import multiprocessing as mp

        if __name__ == "__main__":
            with mp.Manager() as m:
                print(hasattr(m, "set"))
        """
    )
