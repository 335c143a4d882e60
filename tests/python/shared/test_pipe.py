# SPDX-License-Identifier: Apache-2.0
"""Pipes: shoal's own connections, and the drop-in's, which are the standard library's by name."""

from __future__ import annotations

import array
import asyncio
import multiprocessing
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from multiprocessing import reduction, resource_sharer
from multiprocessing.connection import Client, Connection, Listener, wait
from typing import Any

import pytest
import shoal
import shoal.multiprocessing as smp
import shoal.multiprocessing.connection as smp_connection
from shoal._runtime._native import core

METHODS = ("fork", "spawn", "forkserver")
FACES = {"native": shoal.Pipe, "drop-in": smp.Pipe}
FORK = smp.get_context("fork")
SMALL = [
    None,
    True,
    7,
    -(10**30),
    2.5,
    "text",
    "\u20ac\U0001f41f",
    b"bytes",
    (1, [2, {"k": {3}}]),
    len,
]
LARGE = [b"x" * 5_000, "y" * 300_000, list(range(10_000)), bytearray(2_000_000)]


@pytest.fixture(params=FACES)
def make_pipe(request: pytest.FixtureRequest) -> Any:
    return FACES[request.param]


class Unpicklable:
    def __reduce__(self) -> Any:
        raise AttributeError("not this one")


class Undecodable:
    def __reduce__(self) -> Any:
        return int, ("not a number",)


class Point:
    def __init__(self, x: int) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and other.x == self.x

    __hash__ = None  # type: ignore[assignment]


def echo(connection: Any) -> None:
    """A child: sends back all it gets, until "stop"."""
    while (obj := connection.recv()) != "stop":
        connection.send(obj)
    connection.close()


# ---- what both do


def test_objects_come_in_order(make_pipe: Any) -> None:
    one, other = make_pipe()
    objects = [*SMALL, *LARGE, Point(3), {"p": Point(4)}]
    for obj in objects:
        one.send(obj)
    assert [other.recv() for _ in objects] == objects
    assert not other.poll()
    for end in (one, other):
        end.close()


def test_both_directions_are_apart(make_pipe: Any) -> None:
    one, other = make_pipe()
    one.send("to the other")
    other.send("to the one")
    assert one.recv() == "to the one"
    assert other.recv() == "to the other"


def test_one_way(make_pipe: Any) -> None:
    reader, writer = make_pipe(duplex=False)
    assert (reader.readable, reader.writable) == (True, False)
    assert (writer.readable, writer.writable) == (False, True)
    writer.send(1)
    assert reader.recv() == 1
    with pytest.raises(OSError, match="connection is read-only"):
        reader.send(1)
    for read in (writer.recv, writer.recv_bytes, writer.poll):
        with pytest.raises(OSError, match="connection is write-only"):
            read()


def test_what_cannot_be_pickled_raises_and_sends_nothing(make_pipe: Any) -> None:
    one, other = make_pipe()
    with pytest.raises(AttributeError, match="not this one"):
        one.send(Unpicklable())
    one.send(1)
    assert other.recv() == 1


def test_what_cannot_be_unpickled_raises_once(make_pipe: Any) -> None:
    one, other = make_pipe()
    one.send(Undecodable())
    one.send("next")
    with pytest.raises(ValueError, match="not a number"):
        other.recv()
    assert other.recv() == "next"


def test_functions_without_a_name_can_be_sent(make_pipe: Any) -> None:
    one, other = make_pipe()
    base = 40
    one.send(lambda x: base + x)
    assert other.recv()(2) == 42
    padding = "z" * 10_000
    one.send(lambda: len(padding))
    assert other.recv()() == 10_000


@pytest.mark.parametrize("size", [0, 1, 4000, 4091, 4092, 4093, 65_536, 3_000_000])
def test_bytes_keep_their_boundaries(make_pipe: Any, size: int) -> None:
    one, other = make_pipe()
    data = os.urandom(size)
    for _ in range(3):
        one.send_bytes(data)
    assert [other.recv_bytes() for _ in range(3)] == [data] * 3
    one.send_bytes(data, size // 2)
    one.send_bytes(memoryview(data), size // 3, size // 2)
    assert other.recv_bytes() == data[size // 2 :]
    assert other.recv_bytes(size) == data[size // 3 :][: size // 2]


def test_bad_parts_of_a_buffer(make_pipe: Any) -> None:
    one, _other = make_pipe()
    for arguments, message in [
        ((b"abc", -1), "offset is negative"),
        ((b"abc", 4), "buffer length < offset"),
        ((b"abc", 1, -1), "size is negative"),
        ((b"abc", 1, 3), "buffer length < offset . size"),
    ]:
        with pytest.raises(ValueError, match=message):
            one.send_bytes(*arguments)
    with pytest.raises(TypeError):
        one.send_bytes("text")


@pytest.mark.parametrize("size", [10, 100_000])
def test_bytes_into_a_buffer(make_pipe: Any, size: int) -> None:
    one, other = make_pipe()
    data = bytes(i % 251 for i in range(size))
    numbers = array.array("i", [0] * size)
    one.send_bytes(data)
    assert other.recv_bytes_into(numbers, 4) == size
    assert numbers.tobytes()[4 : 4 + size] == data
    one.send_bytes(data)
    with pytest.raises(multiprocessing.BufferTooShort) as caught:
        other.recv_bytes_into(bytearray(size), 1)
    assert caught.value.args[0] == data
    with pytest.raises(ValueError, match="negative offset"):
        other.recv_bytes_into(bytearray(2), -1)
    with pytest.raises(ValueError, match="offset too large"):
        other.recv_bytes_into(bytearray(2), 3)


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_message_that_is_too_long_ends_reading(make_pipe: Any, size: int) -> None:
    one, other = make_pipe()
    one.send_bytes(b"x" * size)
    with pytest.raises(ValueError, match="negative maxlength"):
        other.recv_bytes(-1)
    with pytest.raises(OSError, match="bad message length"):
        other.recv_bytes(size - 1)
    assert not other.readable and not other.closed
    reader, writer = make_pipe(False)
    writer.send_bytes(b"x" * size)
    with pytest.raises(OSError, match="bad message length"):
        reader.recv_bytes(size - 1)
    assert reader.closed


@pytest.mark.parametrize("obj", [[1, 2], "z" * 100_000, ("t", b"z" * 5_000), Point(5)])
def test_objects_and_bytes_are_the_same_messages(make_pipe: Any, obj: Any) -> None:
    one, other = make_pipe()
    one.send_bytes(pickle.dumps(obj))
    assert other.recv() == obj
    one.send(obj)
    assert pickle.loads(other.recv_bytes()) == obj


def test_end_and_broken_pipe(make_pipe: Any) -> None:
    one, other = make_pipe()
    one.send(1)
    one.send(b"z" * 100_000)
    one.close()
    assert other.poll(0) and other.recv() == 1 and len(other.recv()) == 100_000
    assert other.poll(0)
    for read in (other.recv, other.recv_bytes):
        with pytest.raises(EOFError):
            read()
    with pytest.raises(BrokenPipeError):
        other.send(1)
    with pytest.raises(BrokenPipeError):
        other.send(b"z" * 100_000)


def test_closed(make_pipe: Any) -> None:
    one, other = make_pipe()
    with one:
        assert not one.closed
    assert one.closed
    one.close()
    for call in (one.recv, one.poll, one.fileno, one.recv_bytes, lambda: one.send(1)):
        with pytest.raises(OSError, match="handle is closed"):
            call()
    other.close()


def test_poll(make_pipe: Any) -> None:
    one, other = make_pipe()
    assert not other.poll() and not other.poll(-1) and not other.poll(0.01)
    begin = time.monotonic()
    assert not other.poll(0.1)
    assert time.monotonic() - begin >= 0.1
    one.send(1)
    assert other.poll() and other.poll(None) and other.poll(5)
    assert other.recv() == 1


def test_the_descriptor_is_readable_exactly_while_there_is_a_message(make_pipe: Any) -> None:
    one, other = make_pipe()
    descriptor = other.fileno()

    def readable() -> bool:
        return bool(select.select([descriptor], [], [], 0)[0])

    for obj in (1, b"z" * 1_000_000):
        assert not readable()
        one.send(obj)
        one.send(obj)
        assert readable()
        other.recv()
        assert readable()
        other.recv()
        assert not readable()
    one.close()
    assert readable()


def test_wait_for_connections_sockets_and_processes(make_pipe: Any) -> None:
    pairs = [make_pipe() for _ in range(3)]
    first, second = socket.socketpair()
    process = FORK.Process(target=int)
    process.start()
    waited = [*(other for _, other in pairs), second, process.sentinel]
    assert wait([process.sentinel], 30) == [process.sentinel]
    assert wait(waited, 0) == [process.sentinel]
    pairs[1][0].send("x")
    first.send(b"y")
    assert set(wait(waited, 5)) == {pairs[1][1], second, process.sentinel}
    process.join()
    first.close()
    second.close()


def test_asyncio_readers(make_pipe: Any) -> None:
    one, other = make_pipe()

    async def receive(count: int) -> list[Any]:
        loop = asyncio.get_running_loop()
        objects: asyncio.Queue[Any] = asyncio.Queue()
        loop.add_reader(other, lambda: objects.put_nowait(other.recv()))
        for number in range(count):
            one.send([number] * 1000)
        got = [await objects.get() for _ in range(count)]
        loop.remove_reader(other)
        return got

    assert asyncio.run(receive(20)) == [[number] * 1000 for number in range(20)]


def test_large_objects_do_not_wait_for_a_reader(make_pipe: Any) -> None:
    one, other = make_pipe()
    for number in range(50):
        one.send(bytes([number]) * 300_000)
    assert [other.recv()[0] for _ in range(50)] == list(range(50))


def test_a_full_pipe_waits_and_ctrl_c_ends_it(make_pipe: Any) -> None:
    for large in (False, True):
        one, other = make_pipe()
        sent = 0
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            while True:
                one.send(b"z" * (100_000 if large else 3_000))
                sent += 1
        timer.join()
        for _ in range(sent):
            assert len(other.recv()) >= 3_000
        assert not other.poll()
        one.send("goes on")
        assert other.recv() == "goes on"


def test_large_objects_wait_for_a_reader_when_many_bytes_are_on_their_way(make_pipe: Any) -> None:
    for duplex in (False, True):
        receiver, sender = make_pipe(duplex)
        sent: list[int] = []

        def send(sender: Any = sender, sent: list[int] = sent) -> None:
            for number in range(12):
                sender.send_bytes(bytes(16 << 20))
                sent.append(number)

        thread = threading.Thread(target=send)
        thread.start()
        thread.join(0.5)
        assert len(sent) == 4
        assert all(len(receiver.recv_bytes()) == 16 << 20 for _ in range(12))
        thread.join()


def test_a_sender_that_waits_for_a_reader_of_large_objects_hears_of_its_end(make_pipe: Any) -> None:
    for duplex in (False, True):
        receiver, sender = make_pipe(duplex)
        timer = threading.Timer(0.2, receiver.close)
        timer.start()
        with pytest.raises(BrokenPipeError):
            for _ in range(1_000):
                sender.send_bytes(bytes(10_000))
        timer.join()


def test_ctrl_c_ends_a_recv(make_pipe: Any) -> None:
    one, other = make_pipe()
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        timer.start()
        other.recv()
    timer.join()
    one.send(1)
    assert other.recv() == 1


def test_a_handler_that_returns_lets_recv_and_poll_go_on(make_pipe: Any) -> None:
    one, other = make_pipe()
    seen = []
    before = signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
    try:
        for receive in (other.recv, lambda: other.poll(30)):
            threads = [
                threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)),
                threading.Timer(0.2, one.send, ("late",)),
            ]
            for thread in threads:
                thread.start()
            assert receive() in ("late", True)
            for thread in threads:
                thread.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(seen) == 2


def test_a_child_that_polls_takes_nothing(make_pipe: Any) -> None:
    one, other = make_pipe()
    one.send("for the parent")
    process = FORK.Process(target=other.poll, args=(5,))
    process.start()
    process.join()
    assert other.recv() == "for the parent"


def test_the_death_of_the_other_end_is_its_end(make_pipe: Any) -> None:
    one, other = make_pipe()
    process = FORK.Process(target=time.sleep, args=(1000,))
    process.start()
    one.send(b"z" * 100_000)
    one.close()
    process.kill()
    assert len(other.recv()) == 100_000
    with pytest.raises(EOFError):
        other.recv()
    process.join()


def take_many(connection: Any, results: Any, count: int) -> None:
    for _ in range(count):
        results.put(connection.recv()[0])


@pytest.mark.parametrize("size", [1, 3_000, 100_000])
@pytest.mark.parametrize("duplex", [True, False])
def test_several_processes_read_and_write_one_end(make_pipe: Any, size: int, duplex: bool) -> None:
    other, one = make_pipe(duplex)
    results = shoal.Queue()
    each, count = 200, 3

    def send(start: int) -> None:
        for number in range(start, start + each):
            one.send((number, b"z" * size))

    readers = [FORK.Process(target=take_many, args=(other, results, each)) for _ in range(count)]
    writers = [FORK.Process(target=send, args=(i * each,)) for i in range(count)]
    for process in readers + writers:
        process.start()
    assert sorted(results.get() for _ in range(each * count)) == list(range(each * count))
    for process in readers + writers:
        process.join()


def test_threads_share_one_end(make_pipe: Any) -> None:
    one, other = make_pipe()
    got: list[int] = []

    def receive() -> None:
        while (number := other.recv()) is not None:
            got.append(number)

    threads = [threading.Thread(target=receive) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(2_000):
        one.send(number)
    for _ in threads:
        one.send(None)
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(2_000))


def test_closing_while_a_thread_waits_harms_nothing(make_pipe: Any) -> None:
    one, other = make_pipe()
    errors: list[type[BaseException]] = []

    def receive() -> None:
        try:
            other.recv()
        except (OSError, EOFError) as error:
            errors.append(type(error))

    thread = threading.Thread(target=receive)
    thread.start()
    time.sleep(0.05)
    one.close()
    thread.join()
    assert errors == [EOFError]


def test_who_waits_for_a_closed_connection_reads_from_no_other(make_pipe: Any) -> None:
    for duplex in (False, True):
        receiver, sender = make_pipe(duplex)
        errors: list[str] = []

        def receive(receiver: Any = receiver, errors: list[str] = errors) -> None:
            try:
                receiver.recv()
            except OSError as error:
                errors.append(str(error))

        thread = threading.Thread(target=receive)
        thread.start()
        time.sleep(0.1)
        number = receiver.fileno()
        receiver.close()
        others = make_pipe(duplex)
        assert number in [end.fileno() for end in others]
        others[1].send("for another")
        sender.close()
        thread.join()
        assert errors == ["handle is closed"]
        assert others[0].recv() == "for another"


# ---- other processes


@pytest.mark.parametrize("method", METHODS)
def test_a_process_answers(make_pipe: Any, method: str) -> None:
    one, other = make_pipe()
    process = smp.get_context(method).Process(target=echo, args=(other,))
    process.start()
    other.close()
    for obj in [*SMALL, *LARGE]:
        one.send(obj)
        assert one.recv() == obj
    one.send("stop")
    with pytest.raises(EOFError):
        one.recv()
    process.join()
    assert process.exitcode == 0
    one.close()


def pass_on(connections: Any) -> None:
    """A child: gets a connection, answers through it."""
    received = connections.recv()
    received.send(["received", b"z" * 200_000])
    received.close()
    connections.close()


@pytest.mark.parametrize("method", METHODS)
def test_a_connection_goes_through_a_connection(make_pipe: Any, method: str) -> None:
    one, other = make_pipe()
    process = smp.get_context(method).Process(target=pass_on, args=(other,))
    process.start()
    near, far = make_pipe()
    one.send(far)
    far.close()
    assert near.recv()[0] == "received"
    with pytest.raises(EOFError):
        near.recv()
    process.join()
    resource_sharer.stop()


def send_number(connection: Any, number: int) -> None:
    connection.send(number)


def two_ends(reader: Any, writer: Any) -> None:
    writer.send(b"z" * 100_000)
    assert len(reader.recv()) == 100_000


@pytest.mark.parametrize("method", METHODS)
def test_the_parent_may_close_its_copies_at_once(make_pipe: Any, method: str) -> None:
    reader, writer = make_pipe(False)
    process = smp.get_context(method).Process(target=two_ends, args=(reader, writer))
    process.start()
    reader.close()
    writer.close()
    process.join()
    assert process.exitcode == 0


def test_a_connection_goes_through_a_queue(make_pipe: Any) -> None:
    queue = shoal.Queue()
    one, other = make_pipe()
    queue.put(other)
    process = FORK.Process(target=lambda: queue.get().send("hello"))
    process.start()
    assert one.recv() == "hello"
    process.join()
    resource_sharer.stop()


def test_a_descriptor_goes_through_a_connection(make_pipe: Any) -> None:
    one, other = make_pipe()

    def write() -> None:
        descriptor = reduction.recv_handle(other)
        os.write(descriptor, b"written")
        os.close(descriptor)

    process = FORK.Process(target=write)
    process.start()
    reading, writing = os.pipe()
    reduction.send_handle(one, writing, process.pid)
    os.close(writing)
    assert os.read(reading, 100) == b"written"
    os.close(reading)
    process.join()


# ---- strangers


@pytest.mark.parametrize("obj", [*SMALL[:-1], Point(1), "z" * 100_000])
def test_stock_code_can_read_a_copy_of_the_descriptor(make_pipe: Any, obj: Any) -> None:
    one, other = make_pipe()
    with Connection(os.dup(other.fileno())) as stock:
        one.send(obj)
        assert stock.recv() == obj
    one.send("and we go on")
    assert other.recv() == "and we go on"


def test_a_program_that_inherits_the_descriptor_can_read_what_is_small(
    make_pipe: Any, interpreter: Any
) -> None:
    one, other = make_pipe()
    program = """
        import sys
        from multiprocessing.connection import Connection

        connection = Connection(int(sys.argv[1]))
        print(connection.recv(), connection.recv())
        try:
            connection.recv()
        except RuntimeError as error:
            print("can't be received here" in str(error))
        connection.send("x" * 100_000)
    """
    os.set_inheritable(other.fileno(), True)
    for obj in (1, ("small", [2]), "z" * 100_000):
        one.send(obj)
    path = interpreter.folder / "stranger.py"
    path.write_text(textwrap.dedent(program))
    command = [sys.executable, str(path), str(other.fileno())]
    process = subprocess.Popen(
        command, pass_fds=[other.fileno()], stdout=subprocess.PIPE, text=True
    )
    assert len(one.recv()) == 100_000
    assert process.communicate()[0] == "1 ('small', [2])\nTrue\n"


@pytest.mark.parametrize("size", [0, 10, 4_000, 20_000, 1_000_000])
def test_stock_code_can_write_to_a_copy_of_the_descriptor(make_pipe: Any, size: int) -> None:
    one, other = make_pipe()
    data = os.urandom(size)
    stock = Connection(os.dup(one.fileno()))
    thread = threading.Thread(target=lambda: [stock.send_bytes(data), stock.send(size)])
    thread.start()
    assert other.recv_bytes() == data
    assert other.recv() == size
    thread.join()
    stock.close()


def test_ctrl_c_inside_a_strangers_frame_lets_others_read(make_pipe: Any) -> None:
    one, other = make_pipe()
    os.write(one.fileno(), b"\x00\x00\x00\x05ab")
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        timer.start()
        other.recv()
    timer.join()
    one.send_bytes(b"next")  # the reader is at a frame's beginning again, as the stock one would be
    assert other.recv_bytes() == b"next"


def test_bytes_that_are_no_message_raise(make_pipe: Any) -> None:
    one, other = make_pipe()
    os.write(one.fileno(), b"\xf0\x00\x00\x00")
    with pytest.raises(OSError, match="are not a message"):
        other.recv()
    one, other = make_pipe()
    os.write(one.fileno(), b"\x00\x00\x00\x05ab")
    one.close()
    with pytest.raises(OSError, match="got end of file during message"):
        other.recv()


def test_a_note_of_a_block_counts_once(make_pipe: Any) -> None:
    one, other = make_pipe()
    one.send(b"z" * 100_000)
    frame = os.read(other.fileno(), 4096)
    for _ in range(2):
        os.write(one.fileno(), frame)
    assert len(other.recv()) == 100_000
    with pytest.raises(OSError, match="is gone"):
        other.recv()
    assert pickle.dumps(1)  # (the module is there)
    with pytest.raises(RuntimeError, match="received already"):
        pickle.loads(frame[4:])


def test_listeners_and_clients_are_the_standard_librarys() -> None:
    with Listener() as listener:
        thread = threading.Thread(target=lambda: Client(listener.address).send("hello"))
        thread.start()
        with listener.accept() as connection:
            assert type(connection) is Connection
            assert connection.recv() == "hello"
        thread.join()


def test_the_drop_in_is_a_stock_connection() -> None:
    one, other = smp.Pipe()
    assert isinstance(one, Connection)
    assert smp_connection.Pipe()[0].__class__ is type(one)
    assert smp_connection.wait is wait
    shoal.install()
    try:
        for make in (
            multiprocessing.Pipe,
            multiprocessing.connection.Pipe,
            multiprocessing.get_context("fork").Pipe,
        ):
            swapped, _ = make()
            assert type(swapped) is type(one)
    finally:
        shoal.uninstall()
    assert type(multiprocessing.Pipe()[0]) is Connection
    one._send_bytes(b"as stock code does")
    assert other._recv_bytes().getvalue() == b"as stock code does"


# ---- what is left


def test_blocks_on_their_way_go_with_the_pipe(make_pipe: Any) -> None:
    def use() -> int:
        import gc

        gc.collect()
        return int(core.arena_statistics()["in_use"])

    one, other = make_pipe()
    one.send(bytearray(100))
    other.recv()
    before = use()
    for _ in range(3):
        one, other = make_pipe()
        for _ in range(20):
            one.send(b"z" * 1_000_000)
        one.close()
        other.close()
    assert use() <= before + 1_000_000


def test_many_pipes_leave_nothing(make_pipe: Any) -> None:
    for number in range(3_000):
        one, other = make_pipe(number % 2 == 0)
        other.send(number)
        assert one.recv() == number
