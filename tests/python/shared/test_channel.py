# SPDX-License-Identifier: Apache-2.0
"""shoal._core.Channel: messages between processes, and through select and asyncio."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import queue
import select
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from shoal._runtime._native import core

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def name(request: pytest.FixtureRequest) -> Iterator[str]:
    yield f"test {os.getpid()} {abs(hash(request.node.name)) % 10**6}"


def make(name: str, **limits: Any) -> Any:
    return core.Channel(name, mode="create", **limits)


def test_values_come_back_equal(name: str) -> None:
    channel = make(name)
    for value in (None, 3, 2.5, "text", b"x" * 100_000, [1, (2, {"k": {3}})], {"a": [None] * 1000}):
        channel.send(value)
        assert channel.receive() == value
    assert len(channel) == 0
    channel.remove()


def test_an_unpicklable_object_raises_in_send(name: str) -> None:
    channel = make(name)
    with pytest.raises(Exception, match="pickle"):
        channel.send(threading.Lock())
    assert len(channel) == 0
    channel.remove()


def test_full_empty_and_closed(name: str) -> None:
    channel = make(name, items=2)
    channel.send(1)
    channel.send(2)
    with pytest.raises(queue.Full):
        channel.send(3, block=False)
    with pytest.raises(queue.Full):
        channel.send(3, timeout=0.05)
    channel.close()
    assert channel.closed
    with pytest.raises(EOFError, match="closed"):
        channel.send(4)
    assert [channel.receive(), channel.receive()] == [1, 2]
    with pytest.raises(EOFError, match="closed"):
        channel.receive()
    channel.remove()
    with pytest.raises(ValueError, match="removed"):
        channel.receive()


def test_it_is_found_by_its_name(name: str) -> None:
    with pytest.raises(FileNotFoundError):
        core.Channel(name, mode="existing")
    channel = make(name)
    with pytest.raises(FileExistsError):
        make(name)
    core.Channel(name, mode="existing").send("hello")
    assert channel.receive() == "hello"
    with pytest.raises(queue.Empty):
        channel.receive(timeout=0.02)
    channel.remove()


def test_a_byte_limit_holds(name: str) -> None:
    channel = make(name, bytes=1_000_000)
    sent = 0
    with pytest.raises(queue.Full):
        while True:
            channel.send(b"x" * 100_000, block=False)
            sent += 1
    assert 6 <= sent <= 9  # counted as allocated: whole pages of 64 KiB
    assert channel.statistics()["bytes"] <= 1_000_000
    channel.remove()


def test_many_processes_pass_everything_on_once(name: str) -> None:
    channel = make(name, items=50)
    results = make(name + "r")
    count = 1000

    def produce(first: int) -> None:
        for i in range(first, first + count):
            channel.send((i, "x" * (i % 100)))

    def consume() -> None:
        total = 0
        while True:
            try:
                number, text = channel.receive()
            except EOFError:
                break
            assert len(text) == number % 100
            total += number
        results.send(total)

    producers = [FORK.Process(target=produce, args=(i * count,)) for i in range(3)]
    consumers = [FORK.Process(target=consume) for _ in range(2)]
    for process in producers + consumers:
        process.start()
    for process in producers:
        process.join()
    channel.close()
    assert sum(results.receive(timeout=60) for _ in consumers) == sum(range(3 * count))
    for process in consumers:
        process.join()
        assert process.exitcode == 0
    channel.remove()
    results.remove()


def test_ctrl_c_ends_a_receive_and_a_send(name: str) -> None:
    channel = make(name, items=1)
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        timer.start()
        channel.receive()
    timer.join()
    channel.send(1)
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        timer.start()
        channel.send(2)
    timer.join()
    assert channel.receive() == 1
    channel.remove()


def test_select_waits_for_messages(name: str) -> None:
    channel = make(name)

    def later() -> None:
        time.sleep(0.05)
        channel.send("now")

    assert readable(channel, 0) is False
    process = FORK.Process(target=later)
    process.start()
    assert readable(channel, 30)
    assert channel.receive() == "now"
    process.join()
    assert readable(channel, 0) is False
    channel.remove()


def readable(channel: Any, timeout: float) -> bool:
    """As a careful user does it: the descriptor is a hint that may be wrong once."""
    while select.select([channel], [], [], timeout)[0]:
        if len(channel):
            return True
        with pytest.raises(queue.Empty):
            channel.receive(block=False)
    return False


def test_asyncio_receives_what_another_process_sends(name: str) -> None:
    channel = make(name)
    count = 500

    def produce() -> None:
        for i in range(count):
            channel.send(i)

    async def consume() -> list[int]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[list[int]] = loop.create_future()
        got: list[int] = []

        def on_readable() -> None:
            while True:
                try:
                    got.append(channel.receive(block=False))
                except queue.Empty:
                    break
            if len(got) == count and not done.done():
                done.set_result(got)

        loop.add_reader(channel.fileno(), on_readable)
        try:
            return await asyncio.wait_for(done, 60)
        finally:
            loop.remove_reader(channel.fileno())

    process = FORK.Process(target=produce)
    process.start()
    assert asyncio.run(consume()) == list(range(count))
    process.join()
    channel.remove()


def test_a_receiver_killed_in_its_sleep_takes_nothing_from_the_others(name: str) -> None:
    channel = make(name)
    results = make(name + "r")

    def consume() -> None:
        while True:
            try:
                results.send(channel.receive())
            except EOFError:
                return

    processes = [FORK.Process(target=consume) for _ in range(3)]
    for process in processes:
        process.start()
    time.sleep(0.1)
    processes[0].kill()
    for i in range(100):
        channel.send(i)
    got = sorted(results.receive(timeout=30) for _ in range(99))
    assert len(set(got)) == 99
    channel.close()
    for process in processes:
        process.join()
    channel.remove()
    results.remove()


def test_large_arrays_come_out_writable_and_whole(name: str) -> None:
    numpy = pytest.importorskip("numpy")
    channel = make(name)
    array = numpy.arange(200_000, dtype=float).reshape(400, 500)
    channel.send(array)
    got = channel.receive()
    assert (got == array).all()
    got[0, 0] = 7
    assert array[0, 0] == 0
    channel.remove()
