# SPDX-License-Identifier: Apache-2.0
"""Random programs over the namespace, run on the standard library and on shoal at the same time.

Each step is done in both worlds, by this process or by a forked one, and must come to the same: the
same result, or an error of the same type. Left out is what cannot be told apart from chance (a
stock queue is empty for a moment after `put`) and what shoal does better on purpose, see `BETTER`.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest
import shoal.multiprocessing as smp
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from shoal._dropin._executor import DropInExecutor

STOCK: Any = multiprocessing.get_context("fork")
SHOAL: Any = smp.get_context("fork")
SHORT = 0.01  # seconds for what is to time out

# What is compared nowhere, with the pain (or the page of docs/design) that says why.
BETTER = {
    "the owner of a lock that died": "A2: the next taker is told",
    "Pool.imap, when an item of a chunk fails": "A8: the others of its chunk are not lost",
    "Pool.map with a chunk size that is no number": "A10: TypeError; there, join waits for ever",
    "Pool.map with a chunk size of 0": "A8: the default chunks, where the result is [None] there",
    "SharedMemory.close with a view": "F5: the view stays valid, there is no BufferError",
    "ShareableList with trailing NULs": "F6: they come back",
    "ShareableList below its first item": "F6: IndexError, where garbage is read there",
}

Outcome = tuple[str, Any]


def outcome(call: Callable[[], Any]) -> Outcome:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = call()
    except Exception as error:
        return "raised", stock_name(type(error))
    return "gave", result


def stock_name(kind: type) -> str:
    """Of an error of shoal's own, the class of the standard library that it derives from."""
    return next(c.__name__ for c in kind.__mro__ if not c.__module__.startswith("shoal"))


def serve(objects: dict[str, Any], connection: Any) -> None:
    """The second process of one world: does the steps that it is sent."""
    while (step := connection.recv()) is not None:
        connection.send(do(objects, *step))


def do(objects: dict[str, Any], name: str, method: str, arguments: tuple[Any, ...]) -> Outcome:
    return outcome(lambda: CALLS.get(method, _call(method))(objects[name], *arguments))


def _call(method: str) -> Callable[..., Any]:
    return lambda target, *arguments: getattr(target, method)(*arguments)


def _set_value(target: Any, value: Any) -> None:
    target.value = value


CALLS: dict[str, Callable[..., Any]] = {
    "read": lambda x: x.value,
    "write": _set_value,
    "item": lambda x, index: x[index],
    "put_item": lambda x, index, value: x.__setitem__(index, value),
    "length": len,
    "all": lambda x: list(x),
    "state": lambda x: (x.parties, x.n_waiting, x.broken),
    "with": lambda x: x.__enter__() and x.__exit__(None, None, None),
}


class Worlds(RuleBasedStateMachine):
    """The same objects twice, and a second process for each."""

    def begin(self, make: Callable[[Any], dict[str, Any]]) -> None:
        self.objects = [make(STOCK), make(SHOAL)]
        self.ends, self.processes = [], []
        for objects in self.objects:
            here, there = STOCK.Pipe()
            process = STOCK.Process(target=serve, args=(objects, there))
            process.start()
            self.ends.append(here)
            self.processes.append(process)
            there.close()

    def step(self, there: bool, name: str, method: str, *arguments: Any) -> Outcome:
        if there:
            for end in self.ends:
                end.send((name, method, arguments))
            stock, shoal = [end.recv() for end in self.ends]
        else:
            stock, shoal = [do(objects, name, method, arguments) for objects in self.objects]
        assert shoal == stock, (name, method, arguments)
        found: Outcome = stock
        return found

    def teardown(self) -> None:
        for end, process in zip(getattr(self, "ends", ()), getattr(self, "processes", ())):
            end.send(None)
            process.join()
            end.close()


# ---- Locks and their kin


class SyncMachine(Worlds):
    @initialize(permits=st.integers(0, 2), parties=st.integers(1, 2))
    def make(self, permits: int, parties: int) -> None:
        self.begin(
            lambda context: {
                "lock": context.Lock(),
                "rlock": context.RLock(),
                "semaphore": context.Semaphore(permits),
                "bounded": context.BoundedSemaphore(max(permits, 1)),
                "condition": context.Condition(),
                "event": context.Event(),
                "barrier": context.Barrier(parties),
            }
        )

    @rule(
        name=st.sampled_from(["lock", "rlock", "semaphore", "bounded", "condition"]),
        there=st.booleans(),
        arguments=st.sampled_from([(False,), (True, SHORT), (True, 0), (True, -1), (False, 1)]),
    )
    def acquire(self, name: str, there: bool, arguments: tuple[Any, ...]) -> None:
        self.step(there, name, "acquire", *arguments)

    @rule(
        name=st.sampled_from(["lock", "rlock", "semaphore", "bounded", "condition"]),
        there=st.booleans(),
    )
    def release(self, name: str, there: bool) -> None:
        self.step(there, name, "release")

    @rule(name=st.sampled_from(["semaphore", "bounded"]), there=st.booleans())
    def get_value(self, name: str, there: bool) -> None:
        self.step(there, name, "get_value")

    @rule(
        there=st.booleans(),
        step=st.sampled_from([("wait", SHORT), ("notify",), ("notify", 2), ("notify_all",)]),
    )
    def condition(self, there: bool, step: tuple[Any, ...]) -> None:
        kind, result = self.step(there, "condition", "acquire", False)
        if (kind, result) == ("gave", True):
            method, *arguments = step
            # The number of those notified is shoal's own; the standard library returns None.
            ignored = method != "wait"
            found = [
                outcome(lambda o=objects: _call(method)(o["condition"], *arguments))
                if not there
                else ("gave", None)
                for objects in self.objects
            ]
            assert ignored or found[0] == found[1]
            self.step(there, "condition", "release")

    @rule(
        there=st.booleans(),
        step=st.sampled_from([("set",), ("clear",), ("is_set",), ("wait", SHORT), ("wait", 0)]),
    )
    def event(self, there: bool, step: tuple[Any, ...]) -> None:
        self.step(there, "event", *step)

    @rule(
        there=st.booleans(),
        step=st.sampled_from([("wait", SHORT), ("reset",), ("abort",), ("state",)]),
    )
    def barrier(self, there: bool, step: tuple[Any, ...]) -> None:
        self.step(there, "barrier", *step)


# ---- Values and arrays

CODES = st.sampled_from("bBhHiIlLqQfd")
NUMBERS = st.one_of(
    st.integers(-300, 300),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0.5, -1.5, 1e300, None, "x", b"x", b"xy", True]),
)
INDICES = st.one_of(
    st.integers(-8, 8),
    st.builds(
        slice,
        st.one_of(st.none(), st.integers(-7, 7)),
        st.one_of(st.none(), st.integers(-7, 7)),
        st.sampled_from([None, 1, 2, -1]),
    ),
    st.sampled_from(["a", None, 1.0]),
)
VALUES = ["value", "raw_value", "unlocked"]
ARRAYS = ["array", "raw_array", "unlocked_array"]


class ValueMachine(Worlds):
    @initialize(code=CODES, numbers=st.lists(st.integers(0, 100), max_size=6))
    def make(self, code: str, numbers: list[int]) -> None:
        self.begin(
            lambda context: {
                "value": context.Value(code, 3),
                "raw_value": context.RawValue(code),
                "unlocked": context.Value(code, 5, lock=False),
                "array": context.Array(code, numbers),
                "raw_array": context.RawArray(code, numbers),
                "unlocked_array": context.Array(code, len(numbers), lock=False),
            }
        )

    @rule(name=st.sampled_from(VALUES), there=st.booleans())
    def read(self, name: str, there: bool) -> None:
        self.step(there, name, "read")

    @rule(name=st.sampled_from(VALUES), value=NUMBERS, there=st.booleans())
    def write(self, name: str, value: Any, there: bool) -> None:
        self.step(there, name, "write", value)

    @rule(name=st.sampled_from(ARRAYS), index=INDICES, there=st.booleans())
    def item(self, name: str, index: Any, there: bool) -> None:
        self.step(there, name, "item", index)

    @rule(
        name=st.sampled_from(ARRAYS),
        index=INDICES,
        value=st.one_of(NUMBERS, st.lists(st.integers(0, 9), max_size=4)),
        there=st.booleans(),
    )
    def put_item(self, name: str, index: Any, value: Any, there: bool) -> None:
        self.step(there, name, "put_item", index, value)

    @rule(name=st.sampled_from(ARRAYS), how=st.sampled_from(["length", "all"]), there=st.booleans())
    def whole(self, name: str, how: str, there: bool) -> None:
        self.step(there, name, how)

    @rule(
        name=st.sampled_from(["value", "array"]),
        how=st.sampled_from(["acquire", "release", "with"]),
        there=st.booleans(),
    )
    def lock(self, name: str, how: str, there: bool) -> None:
        # With the lock taken by one, the other's accesses would wait: taken and released at once.
        if how == "acquire":
            self.step(there, name, "acquire", False)
            how = "release"
        self.step(there, name, how)


# ---- Queues and pipes

OBJECTS = st.one_of(
    st.integers(),
    st.text(max_size=9),
    st.lists(st.integers(), max_size=3),
    st.integers(10_000, 20_000).map(bytes),
)


class MessageMachine(Worlds):
    @initialize(maxsize=st.integers(0, 3), duplex=st.booleans())
    def make(self, maxsize: int, duplex: bool) -> None:
        def build(context: Any) -> dict[str, Any]:
            reader, writer = context.Pipe(duplex)
            return {
                "queue": context.Queue(maxsize),
                "joinable": context.JoinableQueue(maxsize),
                "simple": context.SimpleQueue(),
                "reader": reader,
                "writer": writer,
            }

        self.waiting = {"queue": 0, "joinable": 0, "simple": 0, "reader": 0}
        self.begin(build)

    @rule(name=st.sampled_from(["queue", "joinable"]), value=OBJECTS, there=st.booleans())
    def put(self, name: str, value: Any, there: bool) -> None:
        # One putter for each queue: two feeder threads keep no order between them.
        if self.step(name == "joinable", name, "put", value, False)[0] == "gave":
            self.waiting[name] += 1

    @rule(value=OBJECTS, there=st.booleans())
    def put_simple(self, value: Any, there: bool) -> None:
        if self.waiting["simple"] < 3:  # a pipe of the standard library's is full some time
            self.step(there, "simple", "put", value)
            self.waiting["simple"] += 1

    @rule(name=st.sampled_from(["queue", "joinable", "simple"]), there=st.booleans())
    def get(self, name: str, there: bool) -> None:
        if self.waiting[name]:
            self.step(there, name, "get", *(() if name == "simple" else (True, 30)))
            self.waiting[name] -= 1
        elif name != "simple":
            self.step(there, name, "get", *((True, SHORT) if there else (False,)))

    @rule(name=st.sampled_from(["queue", "joinable"]), there=st.booleans())
    def qsize(self, name: str, there: bool) -> None:
        self.step(there, name, "qsize")
        self.step(there, name, "full")

    @rule(there=st.booleans())
    def task_done(self, there: bool) -> None:
        self.step(there, "joinable", "task_done")

    @rule(value=OBJECTS, there=st.booleans(), end=st.sampled_from(["writer", "reader"]))
    def send(self, value: Any, there: bool, end: str) -> None:
        if end == "writer" and self.waiting["reader"] >= 3:
            return
        sent = self.step(there, end, "send", value)[0] == "gave"
        if sent and end == "writer":
            self.waiting["reader"] += 1
        elif sent:  # duplex: what was sent the other way is taken at once
            self.step(not there, "writer", "recv")

    @rule(there=st.booleans())
    def receive(self, there: bool) -> None:
        if self.waiting["reader"]:
            self.step(there, "reader", "recv")
            self.waiting["reader"] -= 1

    @rule(there=st.booleans(), timeout=st.sampled_from([0, SHORT]))
    def poll(self, there: bool, timeout: float) -> None:
        self.step(there, "reader", "poll", timeout)

    @rule(there=st.booleans(), how=st.sampled_from(["recv_bytes", "send_bytes"]))
    def bad_use(self, there: bool, how: str) -> None:
        self.step(there, "writer", "send_bytes", "no bytes")
        self.step(there, "reader", "recv_bytes", -1)
        self.step(there, "writer", "send_bytes", b"abc", 5)

    def teardown(self) -> None:
        # A stock feeder thread with more than a pipe holds would keep its process from ending.
        for name in ("queue", "joinable"):
            for _ in range(getattr(self, "waiting", {}).get(name, 0)):
                for objects in self.objects:
                    objects[name].get(True, 30)
        super().teardown()
        for objects in getattr(self, "objects", ()):
            objects["reader"].close()
            objects["writer"].close()
            for name in ("queue", "joinable"):
                objects[name].cancel_join_thread()
                objects[name].close()
            objects["simple"].close()


# ---- Processes


def leave(code: int) -> None:
    os._exit(code)


def stay() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(600)


class ProcessMachine(RuleBasedStateMachine):
    """One process object in each world, used in any order."""

    @initialize(code=st.sampled_from([0, 3, None]), daemon=st.sampled_from([None, True, False]))
    def make(self, code: int | None, daemon: bool | None) -> None:
        target, args = (stay, ()) if code is None else (leave, (code,))
        self.ends = code is not None
        self.stopped = self.started = False
        self.objects = [
            context.Process(target=target, args=args, name="some name", daemon=daemon)
            for context in (STOCK, SHOAL)
        ]

    def both(self, call: Callable[[Any], Any]) -> Outcome:
        stock, shoal = [outcome(lambda o=o: call(o)) for o in self.objects]
        assert shoal == stock
        return stock

    @rule()
    def start(self) -> None:
        if self.both(lambda p: p.start())[0] == "gave":
            self.started = True
            time.sleep(0.005 if not self.ends else 0)

    @rule(timeout=st.sampled_from([0, SHORT]))
    def join_briefly(self, timeout: float) -> None:
        if not self.ends or self.stopped or not self.started:
            self.both(lambda p: p.join(timeout))

    @rule()
    def join(self) -> None:
        if self.ends or self.stopped or not self.started:
            self.both(lambda p: p.join())
            self.both(lambda p: p.exitcode)

    @rule(how=st.sampled_from(["terminate", "kill"]))
    def stop(self, how: str) -> None:
        if self.ends and self.started:
            self.both(lambda p: p.join())
        if self.both(lambda p: getattr(p, how)())[0] == "gave" and self.started:
            self.stopped = True
            self.both(lambda p: p.join())
            self.both(lambda p: p.exitcode)

    @rule()
    def close(self) -> None:
        if self.ends and self.started:
            self.both(lambda p: p.join())
        self.both(lambda p: p.close())

    @rule(
        name=st.sampled_from(["name", "daemon", "authkey", "exitcode", "pid", "ident", "sentinel"])
    )
    def look(self, name: str) -> None:
        if self.ends and self.started:
            self.both(lambda p: p.join())
        identities = ("pid", "ident", "sentinel")
        self.both(lambda p: getattr(p, name) is None if name in identities else getattr(p, name))

    @rule()
    def is_alive(self) -> None:
        if not self.ends or self.stopped or not self.started:
            self.both(lambda p: p.is_alive())

    @rule(daemon=st.sampled_from([True, False]))
    def set_daemon(self, daemon: bool) -> None:
        self.both(lambda p: setattr(p, "daemon", daemon))

    def teardown(self) -> None:
        for process in getattr(self, "objects", ()):
            try:
                process.kill()
                process.join()
                process.close()
            except (ValueError, AttributeError, AssertionError):
                continue  # closed, or never started


# ---- Pools and executors


def parse(text: str) -> int:
    return int(text)


def divide(a: int, b: int) -> float:
    return a / b


TEXTS = st.lists(st.sampled_from(["1", "22", "x", "-3"]), max_size=6)
GOOD = st.lists(st.sampled_from(["1", "22", "-3"]), max_size=30)
PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=5)
CHUNKS = st.sampled_from([None, 1, 2, 7])


class PoolMachine(RuleBasedStateMachine):
    @initialize(workers=st.integers(1, 2))
    def make(self, workers: int) -> None:
        self.pools = [STOCK.Pool(workers), SHOAL.Pool(workers)]
        self.open = True

    def both(self, call: Callable[[Any], Any]) -> None:
        stock, shoal = [outcome(lambda p=pool: call(p)) for pool in self.pools]
        assert shoal == stock

    @rule(texts=st.one_of(TEXTS, GOOD), chunk=CHUNKS)
    def map(self, texts: list[str], chunk: int | None) -> None:
        self.both(lambda p: p.map(parse, texts, chunk))
        self.both(lambda p: p.map_async(parse, texts, chunk).get(60))

    @rule(texts=st.one_of(TEXTS, GOOD), chunk=st.sampled_from([1, 3]))
    def imap(self, texts: list[str], chunk: int) -> None:
        def take(pool: Any) -> list[Any]:
            found = []
            results = pool.imap(parse, texts, chunk)
            for _ in range(len(texts) + 1):
                kind, value = outcome(lambda: next(results))
                found.append((kind, value))
                if value == "StopIteration":
                    break
            return found

        if chunk > 1:
            texts = [text for text in texts if text != "x"]
        self.both(take)
        self.both(lambda p: sorted(p.imap_unordered(parse, texts, chunk)))

    @rule(pairs=PAIRS, chunk=CHUNKS)
    def starmap(self, pairs: list[tuple[int, int]], chunk: int | None) -> None:
        self.both(lambda p: p.starmap(divide, pairs, chunk))

    @rule(pair=st.tuples(st.integers(0, 3), st.integers(0, 3)))
    def apply(self, pair: tuple[int, int]) -> None:
        self.both(lambda p: p.apply(divide, pair))
        self.both(lambda p: p.apply(divide, (), {"a": pair[0], "b": pair[1]}))

        def told(pool: Any) -> Any:
            heard: list[Any] = []
            result = pool.apply_async(
                divide, pair, callback=heard.append, error_callback=lambda e: heard.append(type(e))
            )
            result.wait(60)
            while not heard:
                time.sleep(0.001)
            return result.ready(), result.successful(), heard

        self.both(told)

    @rule(bad=st.sampled_from([5, None]))
    def bad_use(self, bad: Any) -> None:
        self.both(lambda p: p.map(parse, bad))
        self.both(lambda p: p.apply(bad))
        self.both(lambda p: next(p.imap(parse, ["1"], 0)))

    @precondition(lambda self: self.open)
    @rule(how=st.sampled_from(["close", "terminate", "join"]))
    def end(self, how: str) -> None:
        self.both(lambda p: getattr(p, how)())
        self.open = how == "join"  # which is refused while it is open

    @precondition(lambda self: not self.open)
    @rule()
    def join(self) -> None:
        self.both(lambda p: p.join())

    def teardown(self) -> None:
        for pool in getattr(self, "pools", ()):
            pool.terminate()
            pool.join()
        self.pools.clear()  # a stock pool closes its pipes when it is collected


class ExecutorMachine(RuleBasedStateMachine):
    @initialize(workers=st.integers(1, 2))
    def make(self, workers: int) -> None:
        self.executors: list[Any] = [
            ProcessPoolExecutor(workers, mp_context=STOCK),
            DropInExecutor(workers, mp_context=STOCK),
        ]

    def both(self, call: Callable[[Any], Any]) -> None:
        stock, shoal = [outcome(lambda e=executor: call(e)) for executor in self.executors]
        assert shoal == stock

    @rule(pair=st.tuples(st.integers(0, 3), st.integers(0, 3)))
    def submit(self, pair: tuple[int, int]) -> None:
        def told(executor: Any) -> Any:
            future = executor.submit(divide, *pair)
            error = future.exception(60)
            return future.done(), future.cancel(), future.cancelled(), type(error).__name__

        self.both(told)
        self.both(lambda e: e.submit(divide, a=pair[0], b=pair[1]).result(60))

    @rule(texts=st.one_of(TEXTS, GOOD), chunk=st.sampled_from([1, 2, 7, 0, -1]))
    def map(self, texts: list[str], chunk: int) -> None:
        self.both(lambda e: list(e.map(parse, texts, chunksize=chunk)))
        self.both(lambda e: list(e.map(divide, [1, 2, 3], [1, 2], timeout=60)))

    @rule(bad=st.sampled_from([5, None]))
    def bad_use(self, bad: Any) -> None:
        self.both(lambda e: e.submit(bad).result(60))
        self.both(lambda e: e.map(parse, bad))
        self.both(lambda e: e.submit())

    @rule(wait=st.booleans(), cancel=st.booleans())
    def shutdown(self, wait: bool, cancel: bool) -> None:
        self.both(lambda e: e.shutdown(wait=wait, cancel_futures=cancel))

    def teardown(self) -> None:
        for executor in getattr(self, "executors", ()):
            executor.shutdown()


# ---- Named memory


class MemoryMachine(RuleBasedStateMachine):
    """One name in each world, with up to three objects that have it open."""

    @initialize(size=st.sampled_from([1, 7, 4096, 10_000]))
    def make(self, size: int) -> None:
        from multiprocessing.shared_memory import SharedMemory as stock

        from shoal.multiprocessing.shared_memory import SharedMemory as shoals

        self.classes: list[Any] = [stock, shoals]
        self.names = [f"model-{kind}-{os.getpid()}-{time.monotonic_ns()}" for kind in "ab"]
        self.objects: list[list[Any]] = [[], []]
        self.size = size

    def both(self, call: Callable[[int], Any]) -> Outcome:
        stock, shoal = outcome(lambda: call(0)), outcome(lambda: call(1))
        assert shoal == stock
        return stock

    def _open(self, world: int, **options: Any) -> str:
        made = self.classes[world](self.names[world], **options)
        self.objects[world].append(made)
        return type(made).__name__

    @rule()
    def create(self) -> None:
        self.both(lambda world: self._open(world, create=True, size=self.size))

    @rule()
    def attach(self) -> None:
        if len(self.objects[0]) < 4:
            self.both(lambda world: self._open(world))

    @rule(size=st.sampled_from([0, -1, None, "x"]))
    def bad_size(self, size: Any) -> None:
        self.both(lambda world: self._open(world, create=True, size=size))

    @rule(which=st.integers(0, 3), offset=st.integers(0, 12_000), value=st.integers(0, 300))
    def write(self, which: int, offset: int, value: int) -> None:
        self.both(lambda w: self.objects[w][which].buf.__setitem__(offset, value))

    @rule(which=st.integers(0, 3), length=st.integers(0, 50))
    def read(self, which: int, length: int) -> None:
        self.both(lambda w: bytes(self.objects[w][which].buf[:length]))

    @rule(which=st.integers(0, 3))
    def facts(self, which: int) -> None:
        self.both(lambda w: self.objects[w][which].size)
        self.both(lambda w: self.objects[w][which].name == self.names[w])

    @rule(which=st.integers(0, 3), how=st.sampled_from(["close", "unlink"]))
    def end(self, which: int, how: str) -> None:
        self.both(lambda w: getattr(self.objects[w][which], how)())

    def teardown(self) -> None:
        for objects in getattr(self, "objects", ()):
            for index, made in enumerate(objects):
                made.close()
                if index == 0:
                    try:
                        made.unlink()
                    except FileNotFoundError:
                        continue


ITEMS = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.booleans(),
    st.none(),
    st.text("abcdefgh", max_size=20),
    st.binary(max_size=20).filter(lambda b: not b.endswith(b"\0")),
)


class ShareableListMachine(RuleBasedStateMachine):
    @initialize(values=st.lists(ITEMS, min_size=1, max_size=5))
    def make(self, values: list[Any]) -> None:
        from multiprocessing.shared_memory import ShareableList as stock

        from shoal.multiprocessing.shared_memory import ShareableList as shoals

        self.lists: list[Any] = [stock(values), shoals(values)]

    def both(self, call: Callable[[Any], Any]) -> None:
        stock, shoal = [outcome(lambda x=x: call(x)) for x in self.lists]
        assert shoal == stock and repr(shoal) == repr(stock)

    @rule(index=st.integers(-5, 6))
    def get(self, index: int) -> None:
        if index >= -len(self.lists[0]):
            self.both(lambda x: x[index])

    @rule(index=st.integers(-5, 6), value=ITEMS)
    def put(self, index: int, value: Any) -> None:
        if index >= -len(self.lists[0]):
            self.both(lambda x: x.__setitem__(index, value))

    @rule(value=ITEMS)
    def search(self, value: Any) -> None:
        self.both(lambda x: x.count(value))
        self.both(lambda x: x.index(value))
        self.both(lambda x: (len(x), list(x), value in x))

    def teardown(self) -> None:
        for made in getattr(self, "lists", ()):
            made.shm.close()
            made.shm.unlink()


CASES = [
    (SyncMachine, 25),
    (ValueMachine, 40),
    (MessageMachine, 25),
    (ProcessMachine, 30),
    (PoolMachine, 12),
    (ExecutorMachine, 12),
    (MemoryMachine, 40),
    (ShareableListMachine, 40),
]


@pytest.mark.parametrize("machine, examples", CASES, ids=lambda case: getattr(case, "__name__", ""))
def test_both_worlds_do_the_same(machine: type[RuleBasedStateMachine], examples: int) -> None:
    factor = int(os.environ.get("SHOAL_MODEL_FACTOR", "1"))
    case: Any = machine.TestCase
    case.settings = settings(max_examples=examples * factor, stateful_step_count=30, deadline=None)
    case("runTest").runTest()


def test_the_better_ones_are_named() -> None:
    assert all(reason.split(":")[0][0] in "ABCDEFGH" for reason in BETTER.values())
