# SPDX-License-Identifier: Apache-2.0
"""Starts of agents and workers that fail half-way: no process is left that nobody knows, and no
seat is given to two workers.
"""

from __future__ import annotations

from typing import Any

import pytest

HEAD = """
import errno, os, signal, sys, time
import shoal
import shoal.multiprocessing as mp
from shoal._runtime._native import core

class Alarm(Exception):
    pass

def handle(*_):
    raise Alarm

def children(pid="self"):
    pid = os.getpid() if pid == "self" else pid
    found = set()
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/children") as file:
            found.update(map(int, file.read().split()))
    return found

def wait_until(condition):
    deadline = time.monotonic() + 50
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)

def make(kind):
    return shoal.Pool(2, start="zygote") if kind == "native" else mp.get_context(kind).Pool(2)
"""
KINDS = ["native", "fork", "spawn"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_handler_that_raises_during_a_start_leaves_no_process(
    interpreter: Any, kind: str
) -> None:
    interpreter(
        HEAD
        + """
from multiprocessing import util
if __name__ == "__main__":
    signal.signal(signal.SIGALRM, handle)

    def with_an_alarm(start):  # as if the signal came before the caller of `start` has the pid
        def method(*arguments):
            pid = start(*arguments)
            if pid:
                signal.raise_signal(signal.SIGALRM)
            return pid
        return method

    if sys.argv[1] == "spawn":
        mp.get_context("spawn").Pool(1).terminate()  # the resource tracker stays
        util.spawnv_passfds = with_an_alarm(util.spawnv_passfds)
    else:
        fork, os.fork = os.fork, with_an_alarm(os.fork)
    known = children()
    for _ in range(3):
        try:
            make(sys.argv[1])
        except Alarm:
            pass
        else:
            raise AssertionError
        assert children() == known
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    with make(sys.argv[1]) as pool:
        assert pool.apply(abs, (-1,)) == 1
""",
        kind,
    ).check()


NO_WATCH = """
real, client = core.watch_process, os.getpid()
def fails(times, by_client):  # watch_process: so often, in the client or in the agent
    left = [times]
    def watch(pid):
        if left[0] and pid != client and (os.getpid() == client) == by_client:
            left[0] -= 1
            raise OSError(errno.EMFILE, "too many open files")
        return real(pid)
    return watch
"""


def test_an_agent_that_cannot_be_watched_is_ended(interpreter: Any) -> None:
    interpreter(
        HEAD
        + NO_WATCH
        + """
core.watch_process = fails(1, True)
try:
    shoal.Pool(1)
except OSError as error:
    assert error.errno == errno.EMFILE
else:
    raise AssertionError
assert not children()
core.watch_process = real
with shoal.Pool(1) as pool:
    assert pool.apply(abs, (-1,)) == 1
    core.watch_process = fails(1, True)
    killed = pool._engine._agent.pid
    os.kill(killed, signal.SIGKILL)
    while True:  # the restart that fails raises here
        try:
            if pool.apply(abs, (-1,)) == 1 and pool._engine._agent.pid not in (0, killed):
                break
        except OSError:
            assert not children()
    assert children() == {pool._engine._agent.pid}
assert not children()
"""
    ).check()


def test_an_agent_ends_the_workers_that_it_cannot_watch(interpreter: Any) -> None:
    interpreter(
        HEAD
        + NO_WATCH
        + """
core.watch_process = fails(5, False)  # the agent, a snapshot of this process, has it too
with shoal.Pool(2) as pool:
    assert pool.map(abs, [-1, -2]) == [1, 2]
    wait_until(lambda: len(pool.worker_pids()) == 2)
    assert children(pool._engine._agent.pid) == set(pool.worker_pids())
"""
    ).check()


def test_an_agent_without_descriptors_forks_no_workers(interpreter: Any) -> None:
    interpreter(
        HEAD
        + """
import resource
limit = len(os.listdir("/proc/self/fd")) + 12
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
with shoal.Pool(24) as pool:
    agent = pool._engine._agent.pid
    wait_until(lambda: len(pool.worker_pids()) > 2)
    for _ in range(50):  # the agent tries again all the time
        time.sleep(0.02)
        assert len(children(agent)) < limit
    assert pool.map(abs, range(100)) == list(range(100))
"""
    ).check()


@pytest.mark.parametrize("kind", ["fork", "spawn"])
def test_a_keeper_ends_the_workers_that_it_cannot_watch(interpreter: Any, kind: str) -> None:
    interpreter(
        HEAD
        + """
from shoal._dropin import _keeper

class Watched(_keeper._Watched):
    left = 3
    def __init__(self, process):
        if Watched.left:
            Watched.left -= 1
            raise OSError(errno.EMFILE, "too many open files")
        super().__init__(process)

if __name__ == "__main__":
    pool = make(sys.argv[1])
    before = children() - {process.pid for process in pool._pool}
    _keeper._Watched = Watched
    killed = pool._pool[0].pid
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: Watched.left == 0 and killed not in [p.pid for p in pool._pool])
    assert pool.map(abs, [-1, -2]) == [1, 2]
    wait_until(lambda: len(pool._pool) == 2)
    wait_until(lambda: children() - before == {process.pid for process in pool._pool})
    pool.terminate()
    pool.join()
""",
        kind,
    ).check()


def test_a_start_that_is_interrupted_at_once_raises_what_the_handler_raised(
    interpreter: Any,
) -> None:
    interpreter(
        HEAD
        + """
from shoal._workers import _watch
def interrupted(*_):
    raise Alarm
init, _watch.Watch.__init__ = _watch.Watch.__init__, interrupted
try:
    make("fork")
except Alarm:
    pass
else:
    raise AssertionError
_watch.Watch.__init__ = init
with make("fork") as pool:
    assert pool.apply(abs, (-1,)) == 1
"""
    ).check()


@pytest.mark.parametrize("how", ["terminate", "close"])
def test_a_stopped_agent_keeps_no_pool_from_ending(interpreter: Any, how: str) -> None:
    interpreter(
        HEAD
        + """
from shoal._workers import _agent_process
_agent_process._END_PATIENCE_MS = 200
pool = shoal.Pool(2)
assert pool.map(abs, [-1, -2]) == [1, 2]
agent = pool._engine._agent.pid
os.kill(agent, signal.SIGSTOP)
getattr(pool, sys.argv[1])()
pool.join()
assert not os.path.exists(f"/proc/{agent}") and not children()
""",
        how,
    ).check()
