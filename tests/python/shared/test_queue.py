# SPDX-License-Identifier: Apache-2.0
"""Queues: shoal's own classes, and the drop-in's where the standard library says otherwise."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import queue
import resource
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from multiprocessing.connection import wait
from multiprocessing.pool import ThreadPool
from typing import Any

import pytest
import shoal
import shoal.multiprocessing as smp
from shoal._runtime._native import core

METHODS = ("fork", "spawn", "forkserver")
NATIVE = (shoal.Queue, shoal.JoinableQueue, shoal.SimpleQueue)
DROP_IN = ("Queue", "JoinableQueue", "SimpleQueue")
FORK = smp.get_context("fork")


@pytest.fixture(params=[*NATIVE, *DROP_IN], ids=lambda kind: str(kind).split(".")[-1].strip("'>"))
def make_queue(request: pytest.FixtureRequest) -> Any:
    kind = request.param
    return getattr(FORK, kind) if isinstance(kind, str) else kind


@pytest.fixture(autouse=True)
def _starts_no_thread(wait_until: Any) -> Iterator[None]:
    threads = threading.active_count()
    yield
    # (the feeder thread of a stock queue may just be ending)
    wait_until(lambda: threading.active_count() <= threads, "no thread of a queue")


class Unpicklable:
    def __reduce__(self) -> Any:
        raise AttributeError("not this one")


class Undecodable:
    def __reduce__(self) -> Any:
        return int, ("not a number",)


def answer(requests: Any, answers: Any) -> None:
    """A child: sends back all it gets, until None."""
    while (obj := requests.get()) is not None:
        answers.put((os.getpid(), obj))


# ---- what all of them do


def test_values_come_back_in_order(make_queue: Any) -> None:
    any_queue = make_queue()
    values = [None, 1, 2.5, "text", b"x" * 100_000, [1, (2, {"k": {3}})], {"a": [None] * 1000}, len]
    for value in values:
        any_queue.put(value)
    assert any_queue.statistics()["length"] == len(values)
    assert [any_queue.get() for _ in values] == values
    assert any_queue.empty()


def test_put_never_waits_without_a_limit(make_queue: Any) -> None:
    any_queue = make_queue()
    count = 20_000
    for number in range(count):
        any_queue.put(number)
    assert any_queue.qsize() == count
    assert [any_queue.get() for _ in range(count)] == list(range(count))


def test_an_object_that_cannot_be_decoded_raises_once(make_queue: Any) -> None:
    any_queue = make_queue()
    any_queue.put(Undecodable())
    any_queue.put("next")
    with pytest.raises(ValueError, match="not a number"):
        any_queue.get()
    assert any_queue.get() == "next"


def test_ctrl_c_ends_a_get(make_queue: Any) -> None:
    any_queue = make_queue()
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        timer.start()
        any_queue.get()
    timer.join()
    any_queue.put(1)
    assert any_queue.get() == 1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", [*NATIVE, *DROP_IN])
def test_a_process_answers(method: str, kind: Any) -> None:
    context = smp.get_context(method)
    make = getattr(context, kind) if isinstance(kind, str) else kind
    requests, answers = make(), make()
    process = context.Process(target=answer, args=(requests, answers))
    process.start()
    for number in range(300):
        requests.put(number)
    requests.put(None)
    assert [answers.get() for _ in range(300)] == [(process.pid, n) for n in range(300)]
    process.join()
    assert process.exitcode == 0


def test_threads_and_processes_share_the_work(make_queue: Any) -> None:
    any_queue = make_queue()
    results = shoal.SimpleQueue[Any]()
    processes = [FORK.Process(target=answer, args=(any_queue, results)) for _ in range(3)]
    for process in processes:
        process.start()
    count = 500
    threads = [
        threading.Thread(target=lambda: [any_queue.put(n) for n in range(count)]) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    got = [results.get() for _ in range(2 * count)]
    for _ in processes:
        any_queue.put(None)
    for process in processes:
        process.join()
    assert sorted(n for _, n in got) == sorted([*range(count), *range(count)])


def test_what_is_put_before_the_process_ends_is_there(make_queue: Any) -> None:
    any_queue = make_queue()
    payload = b"x" * 3_000_000

    def produce() -> None:
        any_queue.put(payload)
        any_queue.put("end")

    process = FORK.Process(target=produce)
    process.start()
    process.join()  # before get: the standard library waits here for ever
    assert process.exitcode == 0
    assert any_queue.get() == payload
    assert any_queue.get() == "end"


def test_a_consumer_killed_while_it_waits_blocks_nobody(make_queue: Any) -> None:
    any_queue = make_queue()
    answers = shoal.SimpleQueue[Any]()
    processes = [FORK.Process(target=answer, args=(any_queue, answers)) for _ in range(3)]
    for process in processes:
        process.start()
    time.sleep(0.05)
    processes[0].kill()
    processes[0].join()
    for number in range(200):
        any_queue.put(number)
    assert sorted(answers.get()[1] for _ in range(200)) == list(range(200))
    for _ in processes[1:]:
        any_queue.put(None)
    for process in processes[1:]:
        process.join()


def test_waiting_uses_no_processor_time(make_queue: Any) -> None:
    any_queue = make_queue()

    def consume() -> None:
        any_queue.get()
        before = time.process_time()
        any_queue.get()
        any_queue.put(time.process_time() - before)

    process = FORK.Process(target=consume)
    process.start()
    any_queue.put("start")
    time.sleep(1)
    any_queue.put("end")
    process.join()
    assert any_queue.get() < 0.1


def test_connection_wait_selects_it(make_queue: Any) -> None:
    any_queue = make_queue()
    assert wait([any_queue], timeout=0.02) == []
    any_queue.put(1)
    assert wait([any_queue], timeout=30) == [any_queue]
    assert any_queue.get() == 1
    assert wait([any_queue], timeout=0.02) == []


def test_the_memory_comes_back(make_queue: Any) -> None:
    any_queue = make_queue()
    numpy = pytest.importorskip("numpy")
    block = numpy.zeros(1 << 18)
    before = core.arena_statistics()["in_use"]
    for _ in range(100):
        any_queue.put(block)
        any_queue.get()
    assert core.arena_statistics()["in_use"] <= before + 8 * block.nbytes


@pytest.mark.parametrize("kind", [*NATIVE, *DROP_IN])
def test_the_last_holder_frees_it_with_what_is_in_it(kind: Any) -> None:
    def blocks() -> int:
        gc.collect()
        core.reap()
        return int(core.arena_statistics()["in_use"])

    make = getattr(FORK, kind) if isinstance(kind, str) else kind
    made = make()
    before = blocks()
    for _ in range(20):
        made = make()
        for _ in range(3_000):
            made.put(b"x" * 2_000)
        process = FORK.Process(target=made.put, args=(1,))
        process.start()
        process.join()
        assert made.qsize() == 3_001
    del made, process
    assert blocks() <= before + 20_000_000  # of 120 million that were put


# ---- limits


def test_a_full_queue_says_so_and_waits() -> None:
    for bounded in (shoal.Queue(2), FORK.Queue(2), FORK.JoinableQueue(2)):
        bounded.put(1)
        assert not bounded.full()
        bounded.put(2)
        assert bounded.full() and bounded.qsize() == 2
        with pytest.raises(queue.Full):
            bounded.put(3, False)
        with pytest.raises(queue.Full):
            bounded.put(3, True, timeout=0.02)
        thread = threading.Thread(target=bounded.put, args=(3,))
        thread.start()
        assert [bounded.get() for _ in range(3)] == [1, 2, 3]
        thread.join()
        with pytest.raises(queue.Empty):
            bounded.get(timeout=0.02)
        with pytest.raises(queue.Empty):
            bounded.get_nowait()


def test_bytes_are_bounded_too() -> None:
    bounded = shoal.Queue[bytes](maxbytes=1_000_000)
    with pytest.raises(queue.Full):
        while True:
            bounded.put(b"x" * 100_000, block=False)
    assert 6 <= bounded.qsize() <= 9  # as allocated: whole pages of 64 KiB
    assert bounded.statistics()["bytes"] <= 1_000_000
    while not bounded.empty():
        bounded.get()
    bounded.put(b"x" * 5_000_000, block=False)  # alone it is let in
    assert bounded.full()


def test_no_memory_is_an_error_and_not_the_end() -> None:
    program = """
import shoal
queue, count = shoal.Queue(), 0
try:
    while True:
        queue.put(bytes(50_000)); count += 1
except MemoryError:
    pass
assert queue.qsize() == count > 100
assert all(len(queue.get()) == 50_000 for _ in range(count))
queue.put("again"); print(queue.get())
"""
    environment = {**os.environ, "SHOAL_MEMORY_LIMIT": "64M"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "again\n", done.stderr


def test_a_full_session_gives_joinable_queues_their_objects_back() -> None:
    """The process has no memory left to note what it has in hand."""
    program = """
import shoal
queue, count, size = shoal.JoinableQueue(), 0, 50_000
while size >= 16:  # until the smallest block cannot be had
    try:
        while True:
            queue.put(bytes(size)); count += 1
    except MemoryError:
        size //= 4
for number in range(count):
    queue.get(block=False)
    queue.task_done()
queue.join()
print(count > 100, queue.qsize())
"""
    environment = {**os.environ, "SHOAL_MEMORY_LIMIT": "64M"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "True 0\n", done.stderr


def test_the_reader_of_a_queue_that_was_shut_down_is_ready() -> None:
    closing = smp.Queue()
    assert not closing._reader.poll(0.01)
    closing.shutdown()
    assert closing._reader.poll() and closing._reader.poll(10) and closing._reader.poll(None)


def test_a_large_object_waits_for_room_without_trying_all_the_time() -> None:
    class Counted(shoal.Queue[bytes]):
        tries = 0

        def put_nowait(self, obj: bytes) -> None:
            Counted.tries += 1
            super().put_nowait(obj)

    async def main() -> None:
        bounded = Counted(maxbytes=1 << 20)
        bounded.put(bytes(900_000))
        putting = asyncio.create_task(bounded.aput(bytes(200_000)))
        await asyncio.sleep(0.5)
        assert not putting.done() and Counted.tries < 20
        bounded.get()
        await putting
        assert len(bounded.get()) == 200_000

    asyncio.run(main())


def test_many_at_once() -> None:
    many = shoal.Queue[int](maxsize=10)
    assert many.put_many(range(100), block=False) == 10
    with pytest.raises(queue.Full):
        many.put_many([1], timeout=0.01)
    assert many.get_many(4) == [0, 1, 2, 3]
    assert many.get_many(100) == [4, 5, 6, 7, 8, 9]
    with pytest.raises(queue.Empty):
        many.get_many(1, timeout=0.01)
    with pytest.raises(ValueError, match="at least 1"):
        many.get_many(0)
    assert many.put_many([]) == 0
    mixed = shoal.Queue[Any]()
    mixed.put_many([1, 2, Undecodable(), 4])
    with pytest.raises(ValueError, match="not a number") as raised:
        mixed.get_many(10)
    assert raised.value.received == [1, 2]  # type: ignore[attr-defined]
    assert mixed.get_many(10) == [4]


# ---- native only


def test_native_put_raises_at_once_for_what_cannot_be_pickled() -> None:
    for kind in NATIVE:
        made: Any = kind()
        with pytest.raises(AttributeError, match="not this one"):
            made.put(Unpicklable())
        assert made.empty()


def test_native_queues_travel_through_queues_and_results() -> None:
    outer, inner = shoal.Queue[Any](), shoal.Queue[Any](3)
    outer.put(inner)
    same = outer.get()
    inner.put("through")
    assert same.get() == "through" and same.maxsize == 3
    with shoal.Pool(1) as pool:
        assert pool.apply(type(same).put, (same, "from a worker")) is None
    assert inner.get() == "from a worker"
    inner.put(pickle.loads(pickle.dumps(inner)).qsize())
    assert inner.get() == 0


def test_shutdown_lets_the_rest_be_got() -> None:
    closing = shoal.Queue[int]()
    closing.put(1)
    thread = threading.Thread(target=lambda: (time.sleep(0.05), closing.shutdown()))
    thread.start()
    assert closing.get() == 1
    with pytest.raises(shoal.QueueShutDown):
        closing.get()
    thread.join()
    with pytest.raises(shoal.QueueShutDown):
        closing.put(2)
    if sys.version_info >= (3, 13):
        assert issubclass(shoal.QueueShutDown, queue.ShutDown)


def test_closing_is_local() -> None:
    here = shoal.Queue[Any]()
    answers = shoal.SimpleQueue[Any]()
    process = FORK.Process(target=answer, args=(here, answers))
    process.start()
    with here:
        here.put(1)
        here.put(None)
    with pytest.raises(ValueError, match="is closed"):
        here.put(2)
    with pytest.raises(ValueError, match="is closed"):
        here.get()
    assert answers.get()[1] == 1
    process.join()


def test_asyncio_gets_and_puts() -> None:
    requests, answers = shoal.Queue[Any](), shoal.Queue[Any](maxsize=2)
    count = 300
    process = FORK.Process(target=answer, args=(requests, answers))
    process.start()

    async def ask() -> list[int]:
        for number in range(count):
            await requests.aput(number)
        await requests.aput(None)
        tasks = [asyncio.create_task(answers.aget()) for _ in range(count)]
        return sorted(n for _, n in await asyncio.gather(*tasks))

    assert asyncio.run(ask()) == list(range(count))
    process.join()


def test_asyncio_waits_for_room_and_loses_nothing_when_cancelled() -> None:
    small = shoal.Queue[int](maxsize=1)

    async def program() -> list[int]:
        cancelled = asyncio.create_task(small.aget())
        await asyncio.sleep(0.01)
        cancelled.cancel()
        await small.aput(1)
        late = asyncio.create_task(small.aput(2))
        await asyncio.sleep(0.01)
        assert not late.done()
        got = [await small.aget()]
        await late
        return [*got, await small.aget()]

    assert asyncio.run(program()) == [1, 2]


def test_asyncio_hears_of_what_a_process_without_descriptors_puts_and_takes() -> None:
    objects, begin = shoal.Queue[int](maxsize=1), shoal.Event()

    def put_and_take() -> None:
        begin.wait()
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
        objects.put(1)
        while objects.qsize():
            time.sleep(0.01)
        objects.put(2)
        begin.clear()
        begin.wait()
        objects.get()

    async def program() -> None:
        getting = asyncio.create_task(objects.aget())
        await asyncio.sleep(0)  # it waits now
        begin.set()
        assert await getting == 1
        while objects.qsize() == 0:
            await asyncio.sleep(0.01)
        putting = asyncio.create_task(objects.aput(3))
        await asyncio.sleep(0)
        while begin.is_set():
            await asyncio.sleep(0.01)
        begin.set()
        await putting

    process = FORK.Process(target=put_and_take)
    process.start()  # before there is a descriptor, which it would inherit
    asyncio.run(program())
    assert objects.get() == 3
    process.join()


def test_select_sees_what_another_process_puts() -> None:
    watched = shoal.Queue[str]()
    assert not select.select([watched], [], [], 0)[0]
    process = FORK.Process(target=lambda: (time.sleep(0.05), watched.put("now")))
    process.start()
    assert select.select([watched], [], [], 30)[0]
    assert watched.get(block=False) == "now"
    process.join()


def test_large_arrays_come_out_writable_and_whole() -> None:
    numpy = pytest.importorskip("numpy")
    arrays = shoal.Queue[Any]()
    array = numpy.arange(200_000, dtype=float).reshape(400, 500)
    arrays.put(array)
    got = arrays.get()
    assert (got == array).all()
    got[0, 0] = 7
    assert array[0, 0] == 0


# ---- joinable


def test_join_waits_for_all_that_was_put() -> None:
    work = shoal.JoinableQueue[int]()
    assert work.join()

    def consume() -> None:
        for _ in range(20):
            work.get()
            work.task_done()

    work.put_many(range(40))
    assert not work.join(timeout=0.01)
    processes = [FORK.Process(target=consume) for _ in range(2)]
    for process in processes:
        process.start()
    assert work.join()
    assert work.empty()
    with pytest.raises(ValueError, match="too many times"):
        work.task_done()
    for process in processes:
        process.join()


# ---- the drop-in


def test_drop_in_put_prints_what_cannot_be_pickled(capfd: pytest.CaptureFixture[str]) -> None:
    bounded = FORK.Queue(maxsize=1)
    bounded.put(Unpicklable())
    bounded.put(1)
    assert bounded.get(timeout=30) == 1
    assert bounded.empty()
    assert "AttributeError: not this one" in capfd.readouterr().err
    with pytest.raises(AttributeError):
        FORK.SimpleQueue().put(Unpicklable())


def test_drop_in_close_says_what_the_standard_library_says() -> None:
    used, unused = FORK.Queue(), FORK.Queue()
    with pytest.raises(AssertionError, match="not closed"):
        used.join_thread()
    used.put(1)
    for each in (used, unused):
        each.close()
        each.join_thread()
        with pytest.raises(ValueError, match="is closed"):
            each.put(1)
        with pytest.raises(ValueError, match="is closed"):
            each.get()
    assert unused.empty()
    with pytest.raises(OSError, match="handle is closed"):
        used.empty()
    simple = FORK.SimpleQueue()
    simple.close()
    simple.close()
    assert simple._reader.closed and simple._writer.closed
    for call in (simple.empty, simple.get, lambda: simple.put(1)):
        with pytest.raises(OSError, match="is closed"):
            call()


def test_drop_in_pickles_only_for_a_child_being_spawned() -> None:
    for kind in DROP_IN:
        text = f"{kind} objects should only be shared between processes through inheritance"
        with pytest.raises(RuntimeError, match=text):
            pickle.dumps(getattr(FORK, kind)())
    if sys.version_info >= (3, 11):
        process = smp.get_context("spawn").Process(target=answer, args=(FORK.Queue(), 1))
        with pytest.raises(RuntimeError, match="fork context"):
            process.start()


def test_install_swaps_the_stock_classes_and_not_their_subclasses() -> None:
    import multiprocessing
    from multiprocessing.queues import Queue, SimpleQueue

    class Mine(Queue):  # type: ignore[type-arg]
        pass

    shoal.install()
    try:
        context = multiprocessing.get_context("fork")
        for made in (multiprocessing.Queue(), context.SimpleQueue(), Queue(ctx=context)):
            assert isinstance(made, core.Queue)
        assert isinstance(multiprocessing.Queue(), Queue)
        assert isinstance(context.SimpleQueue(), SimpleQueue)
        mine = Mine(ctx=context)
        assert not isinstance(mine, core.Queue)
        mine.put(1)
        assert mine.get() == 1
        mine.close()
        mine.join_thread()
        with ThreadPool(2) as pool:
            assert pool.map(abs, [-1, -2]) == [1, 2]
    finally:
        shoal.uninstall()


def test_the_ends_do_what_a_stock_pool_does_with_them() -> None:
    ends = FORK.SimpleQueue()
    ends._writer.send(1)
    assert ends._reader.poll() and ends._reader.poll(1) and ends._reader.recv() == 1
    assert not ends._reader.poll(0.01)
    with ends._rlock:
        ends._reader.close()
    ends._writer.send(2)
    with pytest.raises(OSError, match="closed"):
        ends._reader.recv()


@pytest.mark.parametrize("name", ["Queue", "JoinableQueue", "SimpleQueue"])
def test_wait_gives_back_the_end_that_it_was_given(name: str) -> None:
    ends = getattr(FORK, name)()
    other = getattr(FORK, name)()
    ends.put(1)
    ready = wait([other._reader, ends._reader], timeout=30)
    assert ready == [ends._reader]
    assert ready[0] is ends._reader
    gone = weakref.ref(ends)
    del ends, ready
    assert gone() is None


# ---- A consumer that dies with objects in hand


def _get_and_stay(queue: Any, count: int, done: int, ready: Any) -> None:
    for _ in range(count):
        queue.get()
    for _ in range(done):
        queue.task_done()
    ready.set()
    time.sleep(600)


@pytest.mark.parametrize("make", [shoal.JoinableQueue, smp.JoinableQueue])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_join_does_not_wait_for_what_the_dead_had_in_hand(make: Any, method: str) -> None:
    context: Any = smp.get_context(method)
    queue = make() if make is shoal.JoinableQueue else context.JoinableQueue()
    ready = context.Event()
    for number in range(5):
        queue.put(number)
    process = context.Process(target=_get_and_stay, args=(queue, 3, 1, ready))
    process.start()
    ready.wait()
    failed: list[BaseException] = []

    def join() -> None:
        try:
            queue.join()
        except BaseException as error:
            failed.append(error)

    waiter = threading.Thread(target=join)
    waiter.start()
    process.kill()
    process.join()
    queue.get()
    queue.task_done()
    time.sleep(0.3)
    assert waiter.is_alive()  # one is still to be got
    queue.get()
    queue.task_done()
    waiter.join(60)
    assert [type(error) for error in failed] == [shoal.ConsumerDied]
    assert str(failed[0]).startswith("2 objects taken")
    queue.join()  # they count as done from now on
    with pytest.raises(ValueError, match="called too many times"):
        queue.task_done()
    queue.put("more")
    assert queue.get() == "more"
    queue.task_done()
    queue.join()


@pytest.mark.parametrize("name", DROP_IN)
def test_a_drop_in_class_takes_a_parameter_in_annotations(name: str) -> None:
    kind = getattr(smp.queues, name)
    assert kind[int].__origin__ is kind
