# SPDX-License-Identifier: Apache-2.0
"""Exceptions of signal handlers, Ctrl-C among them, that hit the main thread anywhere.

The handler raises at random moments while outcomes are fetched. The call that was under way raises
it; no outcome may be lost for that, and none may become another's.
"""

from __future__ import annotations

import os
import random
import signal
from collections import Counter

import pytest
import shoal
import tasks
from shoal._dropin import _processes

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning"),
    # the handler may meet a callback of the garbage collector, whose exceptions are only printed
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
ROUNDS = 60


class Interrupted(BaseException):
    """Raised by the handler of SIGALRM."""


class Interrupts:
    """`with interrupts:` one exception, soon, unless the block ends before."""

    def __init__(self, kind, seed):
        self.kind = kind
        self.chance = random.Random(seed)
        self.armed = False
        self.count = 0

    def __enter__(self):
        self.armed = True
        signal.setitimer(signal.ITIMER_REAL, 1e-6 + self.chance.random() * 0.0006)

    def __exit__(self, *_):
        self.armed = False

    def handle(self, number, frame):
        if self.armed:
            self.armed = False
            self.count += 1
            raise self.kind

    def insist(self, call):
        """The call's result, asked for until it is not interrupted."""
        while True:
            try:
                with self:
                    value = call()
                    self.armed = False
                    return value
            except self.kind:
                pass


@pytest.fixture(params=[KeyboardInterrupt, Interrupted])
def interrupts(request):
    interrupts = Interrupts(request.param, 11)
    before = signal.signal(signal.SIGALRM, interrupts.handle)
    yield interrupts
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_no_result_of_a_pool_is_lost_to_an_interrupt(interrupts):
    with shoal.Pool(2) as pool:
        for _ in range(ROUNDS):
            singles = [pool.apply_async(tasks.Plain, (i,)) for i in range(40)]
            many = pool.map_async(tasks.Plain, range(40), 7)
            for i, single in enumerate(singles):
                assert interrupts.insist(single.get).value == i
            assert [plain.value for plain in interrupts.insist(many.get)] == list(range(40))
    assert interrupts.count > ROUNDS / 10


def test_no_future_is_lost_to_an_interrupt(interrupts):
    with shoal.Executor(2) as executor:
        for _ in range(ROUNDS):
            futures = [executor.submit(tasks.Plain, i) for i in range(60)]
            for i, future in enumerate(futures):
                assert interrupts.insist(future.result).value == i
    assert interrupts.count > ROUNDS / 10


def test_callbacks_are_called_once_at_most_and_results_stay(interrupts):
    with shoal.Pool(2) as pool:
        for _ in range(ROUNDS):
            heard = []
            results = [pool.apply_async(tasks.echo, (i,), callback=heard.append) for i in range(40)]
            many = pool.map_async(tasks.echo, range(5), callback=heard.extend)
            for i, result in enumerate(results):
                assert interrupts.insist(result.get) == i
            assert interrupts.insist(many.get) == list(range(5))
            # An exception may come just before the callback: it is raised, and the call is skipped.
            assert not Counter(heard) - Counter([*range(40), *range(5)])


# ---- Handlers that use shoal ---------------------------------------------------------------------


@pytest.fixture
def on_alarm():
    """`on_alarm(call)`: the handler of SIGALRM makes this call."""
    before = signal.getsignal(signal.SIGALRM)
    yield lambda call: signal.signal(signal.SIGALRM, lambda *_: call())
    signal.signal(signal.SIGALRM, before)


def before_each(monkeypatch, owner, name):
    """A SIGALRM comes at the start of each call of this method, except for the handler's calls."""
    original = getattr(owner, name)
    inside = []

    def method(*arguments):
        if not inside:
            inside.append(1)
            signal.raise_signal(signal.SIGALRM)
            inside.clear()
        return original(*arguments)

    monkeypatch.setattr(owner, name, method)


def test_a_handler_may_cancel_a_future_while_another_is_settled(on_alarm, monkeypatch):
    with shoal.Executor(2) as executor:
        waiting = executor.submit(tasks.sleep_for_ever)
        on_alarm(lambda: waiting.cancel())
        before_each(monkeypatch, shoal.Future, "_settle")
        future = executor.submit(tasks.square, 3)
        assert future.result() == 9
        assert waiting.cancelled()


def test_a_handler_may_poll_a_process_while_its_status_is_read(on_alarm, monkeypatch):
    class Popen(_processes.Waited):
        returncode = None

        def __init__(self, pid):
            self.pid = pid

    pid = os.fork()
    if pid == 0:
        os._exit(7)
    popen, heard = Popen(pid), []
    on_alarm(lambda: heard.append(popen.poll()))
    before_each(monkeypatch, Popen, "_read_status")
    assert popen.poll(0) == 7
    assert heard == [None]
