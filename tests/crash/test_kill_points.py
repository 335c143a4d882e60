# SPDX-License-Identifier: Apache-2.0
"""A worker is killed at every kill point that its work passes: found by name in the testing core,
armed in one worker.
"""

from __future__ import annotations

from typing import Any

import pytest

PROGRAM = """
    import os, sys, time
    sys.path.insert(0, sys.argv[1])
    from killing import check_outcomes, check_strength, kill_worker, outcomes, ready_workers
    from killing import wait_for
    import shoal
    from shoal._runtime._native import core

    prefixes = tuple(sys.argv[2].split(","))
    nth_hits = [int(n) for n in sys.argv[3].split(",")]
    names = [name for name in core.kill_point_names() if name.startswith(prefixes)]
    assert len(names) > 3, names

    def arm(name, nth):
        core.arm_kill_point(name, nth)
        time.sleep(0.002)
        return os.getpid()

    def work(item):
        kind = item % 5
        if kind == 0:
            return item
        if kind == 1:
            return "x" * item
        if kind == 2:
            return bytearray(100_000 + item)  # its block travels
        if kind == 3:
            return [bytes(70_000), item]
        raise KeyError(item)

    def take(block):
        return len(block)

    try:
        import numpy
    except ImportError:
        numpy = None

    def double(array):
        return 2 * array

    def expected(item):
        return work(item) if item % 5 != 4 else "error"

    def all_of(results):
        found = []
        while True:
            try:
                found.append(next(results))
            except StopIteration:
                return found
            except KeyError:
                found.append("error")
            except shoal.WorkerDied as error:
                found.append(error)

    def live(pool, name, nth):
        '''Arms one worker and gives it something of everything to do. True when it died of it.'''
        deaths = 0
        try:
            victim = pool.apply(arm, (name, nth))
        except shoal.WorkerDied as error:
            victim, deaths = error.pid, 1
        for chunk in (1, 4):
            got = all_of(pool.imap(work, range(60), chunksize=chunk))
            deaths += check_outcomes(got, expected, 60)
        blocks = [bytearray(70_000 + i) for i in range(12)]
        deaths += check_outcomes(all_of(pool.imap(take, blocks)), lambda i: 70_000 + i, 12)
        if numpy is not None:
            arrays = [numpy.full(20_000, i) for i in range(8)]
            found = all_of(pool.imap(double, arrays))
            sums = [x if isinstance(x, Exception) else int(x.sum()) for x in found]
            deaths += check_outcomes(sums, lambda i: 40_000 * i, 8)
        assert deaths <= 1, f"{deaths} tasks lost by one death"
        died = victim not in pool.worker_pids()
        if not died:  # it must not stay armed
            kill_worker(pool, victim)
            wait_for(lambda: victim not in ready_workers(pool), "its end")
        check_strength(pool, 2)
        return died

    if __name__ == "__main__":
        passed = set()
        with shoal.Pool(2) as pool:
            pool.map(work, [0, 1, 2, 3])
            for name in names:
                for nth in nth_hits:
                    print("at", name, nth, file=sys.stderr, flush=True)
                    if live(pool, name, nth):
                        passed.add(name)
            blocks = core.check_arena()
            for name in names[:3]:
                live(pool, name, 10**9)
            assert core.check_arena() <= blocks + 30, (blocks, core.check_arena())
        before = core.check_arena()
        with shoal.Pool(2) as pool:
            pool.map(work, [0, 1, 2, 3])
        assert core.check_arena() <= before, "blocks left"
        print(len(passed), len(names), *sorted(passed))
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "prefixes,at_least", [("pool.", 12), ("arena.", 8), ("sync.,channel.,codec.", 0)]
)
def test_killed_at_every_point(
    interpreter: Any, prefixes: str, at_least: int, request: Any
) -> None:
    finished = interpreter(
        PROGRAM,
        str(request.path.parent),
        prefixes,
        "1,3",
        timeout=880,
        env={"SHOAL_TEST_CORE": "1"},
    )
    passed, names, *which = finished.check().splitlines()[-1].split()
    print(f"a worker died at {passed} of {names} points: {' '.join(which)}")
    assert int(passed) >= at_least


START = """
    import os, sys
    sys.path.insert(0, sys.argv[1])
    from killing import check_outcomes, check_strength, outcomes
    import shoal
    from shoal._runtime._native import core

    def arm_once(path, name):
        try:
            os.unlink(path)  # the first of the starting workers only
        except FileNotFoundError:
            return
        core.arm_kill_point(name)

    if __name__ == "__main__":
        for name in core.kill_point_names():
            if not name.startswith(("pool.", "arena.")):
                continue
            print("at", name, file=sys.stderr, flush=True)
            with open("token", "w"):
                pass
            # the armed worker also leaves, after 9 tasks: it may die of that
            with shoal.Pool(2, arm_once, ("token", name), maxtasksperchild=9) as pool:
                found = outcomes(pool.imap(abs, range(-50, 0)))
                assert check_outcomes(found, lambda i: 50 - i, 50) <= 1
                check_strength(pool, 2)
            assert not os.path.exists("token")
"""


def test_killed_while_it_starts_or_leaves(interpreter: Any, request: Any) -> None:
    finished = interpreter(
        START, str(request.path.parent), timeout=200, env={"SHOAL_TEST_CORE": "1"}
    )
    finished.check()
