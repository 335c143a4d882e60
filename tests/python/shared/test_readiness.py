# SPDX-License-Identifier: Apache-2.0
"""Descriptors of queues and connections: readable exactly while there is something to get.

The programs run on the standard library and on shoal (SHOAL_RUN=1), under each start method: what
an event loop may rely on there holds here. Each reader trusts the descriptor and gets with a time
limit of zero, so that a readable descriptor with nothing behind it is an error, not a wait.
"""

from __future__ import annotations

import pytest

METHODS = ("fork", "spawn", "forkserver")
LIBRARIES = ("", "1")  # the value of SHOAL_RUN
WAYS = ("asyncio", "select", "poll", "epoll", "edges", "selectors", "wait")

# One reader, several producers that put in bursts; the reader takes one object, or all there are.
PROGRAM = """
    import asyncio, multiprocessing as mp, queue, select, selectors, sys, time
    from multiprocessing.connection import wait

    PRODUCERS, EACH = 3, 200

    def produce(put, number):
        for i in range(EACH):
            put((number, i))
            if i % 7 == 0:
                time.sleep(0.0005)

    class Waiting:
        '''Waits until the descriptor is readable.'''
        def __init__(self, way, end):
            self.way, self.end, self.fd = way, end, end.fileno()
            if way in ("epoll", "edges"):
                self.poll = select.epoll()
                self.poll.register(self.fd, select.EPOLLIN | (way == "edges" and select.EPOLLET))
            if way == "poll":
                self.poll = select.poll()
                self.poll.register(self.fd, select.POLLIN)
            if way == "selectors":
                self.selector = selectors.DefaultSelector()
                self.selector.register(self.end, selectors.EVENT_READ)

        def __call__(self, seconds):
            if self.way == "select":
                return bool(select.select([self.fd], [], [], seconds)[0])
            if self.way == "poll":
                return bool(self.poll.poll(seconds * 1000))
            if self.way == "selectors":
                return bool(self.selector.select(seconds))
            if self.way == "wait":
                return bool(wait([self.end], seconds))
            return bool(self.poll.poll(seconds))

    def consume(way, end, get_nowait):
        got = []
        readable = Waiting(way, end)
        while len(got) < PRODUCERS * EACH:
            assert readable(30), f"missed after {len(got)}"
            got.append(get_nowait())
            while way == "edges" or len(got) % 3 == 0:  # all there are
                try:
                    got.append(get_nowait())
                except queue.Empty:
                    break
        assert way == "edges" or not readable(0)
        return got

    async def consume_in_loop(end, get_nowait):
        got, done = [], asyncio.Event()
        def ready():
            got.append(get_nowait())
            if len(got) == PRODUCERS * EACH:
                done.set()
        loop = asyncio.get_running_loop()
        loop.add_reader(end.fileno(), ready)
        await asyncio.wait_for(done.wait(), 30)
        loop.remove_reader(end.fileno())
        return got

    def getter(kind, it):
        if kind == "Pipe":
            def get_nowait():
                if not it.poll(0):
                    raise queue.Empty
                return it.recv()
            return get_nowait
        if kind == "SimpleQueue":
            def get_nowait():
                if it.empty():
                    raise queue.Empty
                return it.get()
            return get_nowait
        return it.get_nowait

    if __name__ == "__main__":
        method, kind, ways = sys.argv[1], sys.argv[2], sys.argv[3:]
        context = mp.get_context(method)
        for way in ways:
            if kind == "Pipe":
                end, writer = context.Pipe(duplex=False)
                put, it = writer.send, end
            else:
                it = getattr(context, kind)()
                end, put = it._reader, it.put
            started = [context.Process(target=produce, args=(put, n)) for n in range(PRODUCERS)]
            for process in started:
                process.start()
            if way == "asyncio":
                got = asyncio.run(consume_in_loop(end, getter(kind, it)))
            else:
                got = consume(way, end, getter(kind, it))
            for process in started:
                process.join()
            assert sorted(got) == [(n, i) for n in range(PRODUCERS) for i in range(EACH)]
        print("done")
"""


@pytest.mark.parametrize("kind", ["Queue", "SimpleQueue", "JoinableQueue", "Pipe"])
@pytest.mark.parametrize("method", METHODS)
def test_a_readable_descriptor_has_something_and_nothing_is_missed(
    interpreter, method, kind
) -> None:
    # (On the standard library several writers of a bare Pipe need a lock, and an Empty of Queue
    # does not say that the pipe is empty.)
    ways = [way for way in WAYS if way != "edges" or kind != "Pipe"]
    finished = interpreter(PROGRAM, method, kind, *ways, env={"SHOAL_RUN": "1"}, timeout=120)
    assert finished.check() == "done\n"


LOOP = """
    import asyncio, multiprocessing as mp, sys

    def produce(items, go_on):
        for i in range(5):
            items.put(i)
            go_on.acquire()
        go_on.acquire()  # nothing comes for a while: the loop goes on until it says so
        items.put("end")

    async def main(items, go_on):
        loop, got, done = asyncio.get_running_loop(), [], asyncio.Event()
        def ready():
            got.append(items.get())  # would stand still here
            go_on.release()
            if got[-1] == "end":
                done.set()
        loop.add_reader(items._reader.fileno(), ready)
        while len(got) < 5:
            await asyncio.sleep(0)
        for _ in range(200):
            await asyncio.sleep(0)
        go_on.release()
        await done.wait()
        loop.remove_reader(items._reader.fileno())
        return got

    if __name__ == "__main__":
        context = mp.get_context(sys.argv[1])
        for kind in ("Queue", "SimpleQueue", "JoinableQueue"):
            items, go_on = getattr(context, kind)(), context.Semaphore(0)
            process = context.Process(target=produce, args=(items, go_on))
            process.start()
            assert asyncio.run(main(items, go_on)) == [0, 1, 2, 3, 4, "end"]
            process.join()
        print("done")
"""


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("method", METHODS)
def test_an_event_loop_goes_on_while_a_registered_queue_is_empty(
    interpreter, method, library
) -> None:
    assert interpreter(LOOP, method, env={"SHOAL_RUN": library}).check() == "done\n"


FORKED = """
    import multiprocessing as mp, os, select

    context = mp.get_context("fork")

    def readable(fd):
        return bool(select.select([fd], [], [], 0)[0])

    for kind in ("Queue", "SimpleQueue"):
        items = getattr(context, kind)()
        fd = items._reader.fileno()

        def child(items, answers):
            # A number that was asked for before the fork is this process's too.
            assert not readable(fd)
            answers.put("ready")
            assert select.select([fd], [], [], 30)[0]
            assert items.get() == 1
            assert not readable(fd) and not readable(items._reader.fileno())
            answers.put("done")

        answers = context.SimpleQueue()
        process = context.Process(target=child, args=(items, answers))
        process.start()
        assert answers.get() == "ready"
        items.put(1)
        assert answers.get() == "done"
        assert not readable(fd)  # the child has taken it
        process.join()
        assert process.exitcode == 0
    print("done")
"""


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_number_asked_for_before_a_fork_serves_both(interpreter, library) -> None:
    assert interpreter(FORKED, env={"SHOAL_RUN": library}).check() == "done\n"


SEVERAL = """
    import multiprocessing as mp, queue, select, sys

    def listen(items, results):
        fd, got = items._reader.fileno(), 0
        while True:
            assert select.select([fd], [], [], 30)[0]
            try:
                if items.get(timeout=0.01) is None:
                    break
                got += 1
            except queue.Empty:
                pass  # another one was faster
        results.put(got)

    if __name__ == "__main__":
        context = mp.get_context(sys.argv[1])
        items, results = context.Queue(), context.Queue()
        listeners = [context.Process(target=listen, args=(items, results)) for _ in range(3)]
        for process in listeners:
            process.start()
        for i in range(600):
            items.put(i)
        for process in listeners:
            items.put(None)
        assert sum(results.get(timeout=60) for _ in listeners) == 600
        for process in listeners:
            process.join()
        print("done")
"""


@pytest.mark.parametrize("method", METHODS)
def test_several_processes_may_listen_to_one_queue(interpreter, method) -> None:
    assert interpreter(SEVERAL, method, env={"SHOAL_RUN": "1"}).check() == "done\n"


FULL_TABLE = """
    import multiprocessing as mp, os, resource, select, sys

    def produce(items):
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        taken = []
        try:
            while True:
                taken.append(os.dup(0))
        except OSError:
            pass
        items.put(1)
        for fd in taken:
            os.close(fd)

    if __name__ == "__main__":
        context = mp.get_context(sys.argv[1])
        items = context.SimpleQueue()
        fd = items._reader.fileno()
        process = context.Process(target=produce, args=(items,))
        process.start()
        assert select.select([fd], [], [], 30)[0]
        assert items.get() == 1
        assert not select.select([fd], [], [], 0)[0]
        process.join()
        assert process.exitcode == 0
        print("done")
"""


@pytest.mark.parametrize("method", METHODS)
def test_a_producer_that_may_open_nothing_more_wakes_the_reader(interpreter, method) -> None:
    assert interpreter(FULL_TABLE, method, env={"SHOAL_RUN": "1"}).check() == "done\n"


NATIVE = """
    import select, shoal

    def readable():
        return bool(select.select([fd], [], [], 0)[0])

    for make in (shoal.Queue, shoal.SimpleQueue, shoal.JoinableQueue):
        items = make()
        fd = items.fileno()
        assert not readable()
        items.put(1)
        items.put(2)
        assert readable() and items.get() == 1
        assert readable() and items.get() == 2
        assert not readable() and items.fileno() == fd
        if hasattr(items, "put_many"):
            items.put_many(range(3))
            assert readable() and items.get_many(10) == [0, 1, 2]
            assert not readable()
    print("done")
"""


def test_a_native_queue_says_what_is(interpreter) -> None:
    assert interpreter(NATIVE).check() == "done\n"
