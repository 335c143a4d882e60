# SPDX-License-Identifier: Apache-2.0
"""Programs under resource limits (ulimit -f, -n, -v, -u, -l): they work as on the standard library,
or get one error that names the limit.

Each program runs on both (SHOAL_RUN), so what is asked for here is what the standard library does.
"""

from __future__ import annotations

import pytest

METHODS = ("fork", "spawn", "forkserver")

HEAD = """
    import multiprocessing as mp, os, resource, sys
    from concurrent.futures import ProcessPoolExecutor

    def square(x):
        return x * x

    def turn(data):
        return data[::-1]

    def fill(items, data):
        items.put(data)

    def limit(name, value):
        resource.setrlimit(getattr(resource, "RLIMIT_" + name), (value, value))

    def check(context, size):
        data = os.urandom(size)
        with context.Pool(2) as pool:
            assert pool.map(square, range(10)) == [x * x for x in range(10)]
            assert pool.apply(turn, (data,)) == data[::-1]
        with ProcessPoolExecutor(2, mp_context=context) as executor:
            assert executor.submit(turn, data).result() == data[::-1]
        items = context.Queue()
        process = context.Process(target=fill, args=(items, data))
        process.start()
        assert items.get() == data
        process.join()
        with context.Manager() as manager:
            held = manager.dict()
            held["k"] = data[:1000]
            assert held["k"] == data[:1000]
        with context.Lock(), context.RLock():
            pass
        value = context.Value("i", 3)
        with value.get_lock():
            value.value += 1
        assert value.value == 4
"""

UNDER = (
    HEAD
    + """
    if __name__ == "__main__":
        method, name, value, size = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
        limit(name, value)
        check(mp.get_context(method), size)
        print("done")
"""
)


def run(interpreter, method, name, value, size=100_000):
    finished = interpreter(
        UNDER, method, name, str(value), str(size), env={"SHOAL_RUN": "1"}, timeout=120
    )
    assert finished.check() == "done\n"


# ---- ulimit -f: no file, memory files included, may be larger ------------------------------------


@pytest.mark.parametrize("limit", [64 << 10, 4 << 20])
@pytest.mark.parametrize("method", METHODS)
def test_messages_may_be_larger_than_a_file_may_be(interpreter, method, limit) -> None:
    run(interpreter, method, "FSIZE", limit, 8 << 20)


def test_memory_is_there_where_no_file_may_hold_a_byte(interpreter) -> None:
    program = HEAD + (
        """
    if __name__ == "__main__":
        limit("FSIZE", 0)
        context = mp.get_context("fork")
        items = context.SimpleQueue()
        process = context.Process(target=fill, args=(items, bytes(1 << 20)))
        process.start()
        assert len(items.get()) == 1 << 20
        process.join()
        print("done")
    """
    )
    assert interpreter(program, env={"SHOAL_RUN": "1"}).check() == "done\n"


SNAPSHOT = """
    import os, resource, sys
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
    import shoal

    def make(n):
        return bytearray(n)

    with shoal.Pool(1, start="fork") as pool:
        numbers = pool.apply(bytearray, (bytes(range(256)) * 4096,))
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(read, 1)  # the parent has freed what it held
        os._exit(0 if numbers == bytes(range(256)) * 4096 else 1)
    del numbers
    queue = shoal.Queue()
    for i in range(20):
        queue.put(bytes([i]) * (1 << 20))
    os.write(write, b"!")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert [queue.get()[0] for _ in range(20)] == list(range(20))
    print("done")
"""


def test_a_forked_child_keeps_its_arrays_under_a_file_size_limit(interpreter) -> None:
    assert interpreter(SNAPSHOT).check() == "done\n"


def test_memory_that_is_given_back_is_gone_under_a_file_size_limit(interpreter) -> None:
    program = """
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
    import shoal
    from shoal._runtime._native import core

    queue = shoal.Queue()
    queue.put(bytes(100 << 20))
    assert core.arena_statistics()["committed"] > 100 << 20
    queue.get()
    del queue
    print("done")
    """
    assert interpreter(program, env={"SHOAL_DECAY": "0"}).check() == "done\n"


LEFTOVERS = """
    import ctypes, os, resource, signal, subprocess, sys

    libc = ctypes.CDLL(None, use_errno=True)
    CREATE, NORESERVE, KEY = 0o1000, 0o10000, 0x5A110007

    def segments():
        rows = [line.split() for line in open("/proc/sysvipc/shm").read().splitlines()[1:]]
        return [row for row in rows if int(row[0]) & 0xFFFFFFFF == KEY]

    # What a process leaves that is killed between making a segment and marking it for removal.
    if os.fork() == 0:
        libc.shmget(KEY, ctypes.c_size_t(1 << 20), CREATE | NORESERVE | 0o600)
        os._exit(0)
    os.wait()
    assert segments()
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
    import shoal
    shoal.Queue()
    assert not segments()
    print("done")
"""


def test_a_segment_of_a_killed_process_is_removed_by_the_next(interpreter) -> None:
    assert interpreter(LEFTOVERS).check() == "done\n"


# ---- ulimit -v: little address space -------------------------------------------------------------


@pytest.mark.parametrize("limit", [512 << 20, 1 << 30, 4 << 30])
@pytest.mark.parametrize("method", METHODS)
def test_the_reserve_leaves_the_program_its_address_space(interpreter, method, limit) -> None:
    run(interpreter, method, "AS", limit, 8 << 20)


def test_most_of_the_address_space_stays_the_programs(interpreter) -> None:
    program = """
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    import shoal
    queue = shoal.Queue()
    mine = bytearray(500 << 20)
    queue.put(bytes(100 << 20))
    assert len(queue.get()) == 100 << 20
    try:
        for i in range(1000):
            queue.put(bytes(10 << 20))
    except MemoryError as error:
        print(error)
    """
    text = interpreter(program).check()
    assert "ulimit -v" in text and "SHOAL_RESERVE" in text


# ---- ulimit -n: few descriptors ------------------------------------------------------------------

DESCRIPTORS = (
    HEAD
    + """
    if __name__ == "__main__":
        method, value = sys.argv[1], int(sys.argv[2])
        limit("NOFILE", value)
        try:
            check(mp.get_context(method), 100_000)
        except OSError as error:
            print(error.errno == 24, "Too many open files" in str(error))
            sys.stdout.flush()
            os._exit(0)
        print("done")
"""
)


# With 16 descriptors the fork server itself may end, under the standard library too.
@pytest.mark.parametrize(
    ("method", "limit"),
    [
        (method, limit)
        for method in METHODS
        for limit in (16, 32, 64)
        if (method, limit) != ("forkserver", 16)
    ],
)
def test_few_descriptors_are_enough_where_they_are_for_the_standard_library(
    interpreter, method, limit
) -> None:
    stock = interpreter(DESCRIPTORS, method, str(limit), env={"SHOAL_RUN": ""}, timeout=120)
    ours = interpreter(DESCRIPTORS, method, str(limit), env={"SHOAL_RUN": "1"}, timeout=120)
    if stock.returncode == 0 and stock.out == "done\n":
        assert ours.check() == "done\n"
    else:
        assert ours.check() in ("done\n", "True True\n")


@pytest.mark.parametrize("limit", range(4, 14))
def test_a_pool_that_cannot_start_for_want_of_descriptors_says_so(interpreter, limit) -> None:
    program = """
        import multiprocessing as mp, resource, sys

        def square(x):
            return x * x

        if __name__ == "__main__":
            resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]),) * 2)
            context = mp.get_context("fork")
            try:
                with context.Pool(2) as pool:
                    assert pool.map(square, range(3)) == [0, 1, 4]
            except OSError as error:
                assert error.errno == 24, error
                assert f"may have {sys.argv[1]} files open (ulimit -n" in str(error), error
            print("told or done")
    """
    ours = interpreter(program, str(limit), env={"SHOAL_RUN": "1"})
    assert ours.check() == "told or done\n"


# ---- ulimit -u: few processes; ulimit -l: no locked memory ---------------------------------------

PROCESSES = """
    import ctypes, multiprocessing as mp, multiprocessing.pool, os, resource, sys

    def square(x):
        return x * x

    if __name__ == "__main__":
        context = mp.get_context("fork")
        with context.Pool(1) as pool:  # imports what another user may not be able to read
            assert pool.apply(square, (2,)) == 4
        if os.getuid() == 0:  # root is not limited
            os.setgid(54321)
            os.setuid(54321)
            ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # dumpable again
        resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
        try:
            with context.Pool(2) as pool:
                print(pool.map(square, range(3)))
        except OSError as error:
            print(error.errno == 11, str(error)[:300])
            sys.stdout.flush()
            os._exit(0)
"""


def test_an_error_says_that_no_process_can_be_started(interpreter) -> None:
    finished = interpreter(PROCESSES, env={"SHOAL_RUN": "1"})
    assert finished.check().startswith("True")
    assert "have 1 processes and threads (ulimit -u, RLIMIT_NPROC)" in finished.out


@pytest.mark.parametrize("method", METHODS)
def test_no_memory_need_be_locked(interpreter, method) -> None:
    run(interpreter, method, "MEMLOCK", 0)
