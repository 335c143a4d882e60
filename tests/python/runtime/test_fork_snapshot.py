# SPDX-License-Identifier: Apache-2.0
"""A fork is a snapshot: what came from another process belongs to its receiver as any object does,
so a child of the receiver has it as it was at the fork, whatever either of them writes later.

In each test the parent writes everything after the fork and the child one element, and each looks
at what the other must not have changed.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
import shoal
from pool_kinds import SHOAL, WATCHDOG, make_executor, make_pool
from shoal._runtime._native import core

numpy = pytest.importorskip("numpy")

pytestmark = [WATCHDOG, pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")]
SIZE = 50_000  # float64: several pages, far above the size from which arrays are not copied


class Child:
    """A fork of this process. It runs `first` at once; `result()` lets it go on, and gives what
    `then` returned in it.
    """

    def __init__(self, first: Callable[[], Any], then: Callable[[], Any]) -> None:
        ready, self._go, self._result = os.pipe(), os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.close(self._go[1])
                first()
                os.write(ready[1], b"!")
                os.read(self._go[0], 1)
                try:
                    answer = pickle.dumps(then())
                except BaseException as error:
                    answer = pickle.dumps(error)
                os.write(self._result[1], answer)
                code = 0
            finally:
                os._exit(code)
        os.close(self._result[1])
        os.close(self._go[0])
        os.close(ready[1])
        assert os.read(ready[0], 1) == b"!", "the child died"
        os.close(ready[0])

    def result(self) -> Any:
        os.write(self._go[1], b"!")  # its end would not be seen: later children have a copy
        os.close(self._go[1])
        with os.fdopen(self._result[0], "rb") as pipe:
            answer = pipe.read()
        os.waitpid(self.pid, 0)
        assert answer, "the child died"
        found = pickle.loads(answer)
        if isinstance(found, BaseException):
            raise found
        return found


class Holder:
    """An object of a user's class, which is pickled."""

    def __init__(self, array: Any) -> None:
        self.array = array


def zeros(_: Any = None) -> Any:
    return numpy.zeros(SIZE)


def in_object(_: Any = None) -> Any:
    return Holder(zeros())


def in_containers(_: Any = None) -> Any:
    return {"a": [1, (zeros(), "x")]}


def _through(put: Callable[[Any], None], get: Callable[[], Any]) -> Any:
    put(zeros())
    return get()


def from_queue(kind: Any) -> Any:
    queue = kind()
    return _through(queue.put, queue.get)


def from_pipe() -> Any:
    reader, writer = shoal.Pipe(duplex=False)
    thread = threading.Thread(target=lambda: writer.send(zeros()))
    thread.start()
    array = reader.recv()
    thread.join()
    reader.close()
    writer.close()
    return array


def from_dict() -> Any:
    shared = shoal.Dict()
    shared["x"] = zeros()
    return shared["x"]


def from_list() -> Any:
    return shoal.List([zeros()])[0]


def from_call(verb: str, kind: str) -> Any:
    if verb == "submit":
        with make_executor(kind, 1) as executor:
            return executor.submit(zeros).result()
    with make_pool(kind, 1) as pool:
        if verb == "map":
            return pool.map(zeros, [0, 1])[1]
        if verb == "imap":
            return next(pool.imap(zeros, [0]))
        if verb == "object":
            return pool.apply(in_object).array
        if verb == "containers":
            return pool.apply(in_containers)["a"][1][0]
        if verb == "slice":
            return pool.apply(zeros)[10:][::-1]
        if verb == "memoryview":
            return numpy.frombuffer(memoryview(pool.apply(zeros)).cast("B"), dtype=float)
        return pool.apply(zeros)


SOURCES: dict[str, Callable[[], Any]] = {
    f"{verb}-{kind}": (lambda verb=verb, kind=kind: from_call(verb, kind))
    for verb in ("apply", "map", "imap", "submit", "object", "containers", "slice", "memoryview")
    for kind in (SHOAL if verb == "apply" else ("shoal-fork",))
} | {
    "queue": lambda: from_queue(shoal.Queue),
    "simple queue": lambda: from_queue(shoal.SimpleQueue),
    "joinable queue": lambda: from_queue(shoal.JoinableQueue),
    "pipe": from_pipe,
    "dict value": from_dict,
    "list element": from_list,
}


@pytest.fixture(params=SOURCES)
def array(request):
    array = SOURCES[request.param]()
    assert not array.any()
    assert array.flags.writeable
    return array


def store(array: Any, index: int, value: float) -> None:
    array[index] = value


# ---- Both sides write ----------------------------------------------------------------------------


def test_neither_side_sees_what_the_other_writes_after_a_fork(array):
    child = Child(
        lambda: store(array, 1, 5), lambda: (float(array[1]), float(array.sum()), array.size)
    )
    array[:] = 1
    assert child.result() == (5, 5, array.size)
    assert (array == 1).all()


def test_grandchildren_have_what_their_parent_had():
    array = from_call("apply", "shoal-zygote")

    def middle() -> tuple[float, float]:
        array[1] = 2
        grandchild = Child(lambda: store(array, 2, 3), lambda: (*array[:4].tolist(), *array[-2:]))
        array[:] = 9
        assert grandchild.result() == (0, 2, 3, 0, 0, 0)
        return float(array.min()), float(array.max())

    child = Child(lambda: store(array, 0, 0), middle)
    array[:] = 1
    assert child.result() == (9, 9)
    assert (array == 1).all()


def test_each_of_several_children_has_the_contents_of_its_own_fork():
    array = from_call("apply", "shoal-zygote")
    children = []
    for i in range(4):
        array[:] = i
        children.append(Child(lambda: None, lambda: (float(array[0]), float(array[-1]))))
    array[:] = 99
    assert [child.result() for child in children] == [(i, i) for i in range(4)]


def test_a_child_keeps_its_copy_when_the_parent_has_dropped_and_recycled_its_own():
    arrays = [from_call("apply", "shoal-zygote") for _ in range(3)]
    child = Child(lambda: None, lambda: [float(array.sum()) for array in arrays])
    with make_pool("shoal-zygote", 1) as pool:
        arrays.clear()
        for _ in range(20):  # over the same memory, were it free
            assert pool.apply(numpy.ones, (SIZE,)).all()
    assert child.result() == [0, 0, 0]


# ---- Pools ---------------------------------------------------------------------------------------

held: Any = None


def sum_of_held() -> float:
    return float(held.sum())


def write_held(value: float) -> None:
    held[:] = value


def total(array: Any) -> float:
    return float(array.sum())


@pytest.mark.parametrize("kind", ["shoal-zygote", "shoal-fork"])
def test_workers_see_the_program_as_it_was_when_their_pool_was_made(kind):
    global held
    held = from_call("apply", kind)
    try:
        with make_pool(kind, 1) as pool:
            assert pool.apply(sum_of_held) == 0
            held[:] = 1
            assert pool.apply(sum_of_held) == 0
            pool.apply(write_held, (7,))
            assert (held == 1).all()
            assert pool.apply(sum_of_held) == 7 * SIZE
            with make_pool(kind, 1) as later:
                assert later.apply(sum_of_held) == SIZE
    finally:
        held = None


def test_an_argument_has_the_contents_that_it_has_when_it_is_passed():
    array = from_call("apply", "shoal-zygote")
    child = Child(lambda: None, lambda: None)
    array[:] = 1  # in a private view by now
    with make_pool("shoal-zygote", 1) as pool:
        assert pool.apply(total, (array,)) == SIZE
        array[0] = 2
        assert pool.apply(total, (array,)) == SIZE + 1
        assert pool.map(total, [array, array[1:]]) == [SIZE + 1, SIZE - 1]
    queue = shoal.Queue()
    queue.put(array)
    got = queue.get()
    assert float(got.sum()) == SIZE + 1
    got[:] = 0
    assert float(array.sum()) == SIZE + 1
    child.result()


def return_while_a_child_watches(array: Any, go: int, report: int) -> Any:
    """The task forks, and gives its argument back: a result that could be handed on in place."""
    array[0] = 1
    if os.fork() == 0:
        try:
            os.read(go, 1)
            os.write(report, str(array[:2].tolist() + [float(array.sum())]).encode())
        finally:
            os._exit(0)
    return array


def test_a_result_that_a_forked_child_still_sees_is_copied():
    go, report = os.pipe(), os.pipe()
    with make_pool("shoal-fork", 1) as pool:
        array = pool.apply(return_while_a_child_watches, (zeros(), go[0], report[1]))
        assert float(array.sum()) == 1
        array[:] = 9
        os.write(go[1], b"!")
        assert os.read(report[0], 100) == b"[1.0, 0.0, 1.0]"
        assert (array == 9).all()
    for end in (*go, *report):
        os.close(end)


# ---- What is shared stays shared -----------------------------------------------------------------


def test_what_is_shared_on_purpose_is_shared_after_a_fork():
    import multiprocessing

    shared = shoal.Dict(x=0)
    numbers = shoal.List([0] * 10)
    block = shoal.SharedMemory(create=True, size=8 * SIZE)
    view = numpy.ndarray(SIZE, dtype=float, buffer=block.buf)
    raw = multiprocessing.get_context("fork").RawArray("d", SIZE)
    view[:] = 0
    other = from_call("apply", "shoal-zygote")  # turned private by the same fork

    def write() -> None:
        shared["x"] = 1
        numbers[3] = 1
        view[1] = 1
        raw[1] = 1
        other[1] = 1

    child = Child(write, lambda: (shared["x"], numbers[4], float(view[2]), raw[2], float(other[2])))
    assert (shared["x"], numbers[3], float(view[1]), raw[1], float(other[1])) == (1, 1, 1, 1, 0)
    shared["x"] = numbers[4] = view[2] = raw[2] = other[2] = 2
    assert child.result() == (2, 2, 2, 2, 0)
    block.close()
    block.unlink()


# ---- Threads and deaths --------------------------------------------------------------------------


def test_forks_beside_a_thread_that_receives_arrays():
    queue = shoal.Queue()
    arrays: list[Any] = []
    stop = threading.Event()

    def receive() -> None:
        number = 0
        while not stop.is_set():
            queue.put(numpy.full(SIZE, float(number)))
            arrays.append(queue.get())
            number += 1
            if len(arrays) > 30:
                del arrays[:10]

    thread = threading.Thread(target=receive)
    thread.start()
    try:
        for _ in range(15):
            seen: list[tuple[Any, float]] = []
            child = Child(
                lambda: seen.extend((found, float(found[-1])) for found in arrays),
                lambda: [value for found, value in seen if not (found == value).all()],
            )
            for found in list(arrays):
                found[:] -= 1
            assert child.result() == []
    finally:
        stop.set()
        thread.join()


def test_memory_of_killed_children_comes_back(wait_until):
    core.reap()
    before = core.arena_statistics()["in_use"]
    arrays = [from_call("apply", "shoal-zygote") for _ in range(2)]
    for _ in range(10):
        child = Child(lambda: store(arrays[0], 0, 1), lambda: None)
        os.kill(child.pid, signal.SIGKILL)
        os.close(child._go[1])
        os.close(child._result[0])
        os.waitpid(child.pid, 0)
    arrays.clear()

    def is_back() -> bool:
        core.reap()
        return core.arena_statistics()["in_use"] <= before + (1 << 20)

    wait_until(is_back)


# The parent ends in the instant of the fork, as daemons' do; what the child has must not go with
# it, nor may its memory be used anew. The reader of the pipe is the only one who stays.
ORPHANS = """
    import os, sys
    import numpy, shoal

    def zeros(i):
        return numpy.zeros(50_000)

    with shoal.Pool(1) as pool:
        arrays = pool.map(zeros, range(5))
    for generation in range(20):
        for i, array in enumerate(arrays):
            array[i] += 1
        if os.fork():
            os._exit(0)
    assert [float(array.sum()) for array in arrays] == [20] * 5
    assert [float(array[i]) for i, array in enumerate(arrays)] == [20] * 5
    with shoal.Pool(1) as pool:
        assert pool.map(numpy.sum, arrays) == [20] * 5
    print("right")
"""


def test_children_of_parents_that_end_at_once_keep_what_they_have(interpreter):
    finished = interpreter(ORPHANS)
    assert (finished.out, finished.err) == ("right\n", "")


# ---- The drop-in ---------------------------------------------------------------------------------

DROP_IN = """
    import multiprocessing, os, sys
    import numpy
    import shoal

    shoal.install()
    N = 100_000

    def make(i):
        return numpy.zeros(N)

    class Holder:
        def __init__(self, array):
            self.array = array

    def make_holder(i):
        return Holder(make(i))

    def look(go, answers, *arrays):
        arrays = [getattr(array, "array", array) for array in arrays]
        for array in arrays:
            array[0] = 5
        answers.put("ready")
        go.wait(60)
        answers.put([float(array.sum()) for array in arrays])

    def total(array):
        return float(array.sum())

    def total_of_global(_):
        return float(X.sum())

    if __name__ == "__main__":
        context = multiprocessing.get_context(sys.argv[1])
        with context.Pool(2) as pool:
            X = pool.apply(make, (0,))
            Y = pool.apply(make_holder, (0,))
            Z = pool.map(make, [1, 2])
        with context.Manager() as manager:
            values = manager.dict(a=make(0))
            V = values["a"]
        go, answers = context.Event(), context.Queue()
        W = (answers.put(make(0)), answers.get())[1]
        everything = [X, Y, *Z, V, W]
        process = context.Process(target=look, args=(go, answers, *everything))
        process.start()
        assert answers.get() == "ready"
        for found in everything:
            getattr(found, "array", found)[:] = 1
        go.set()
        assert answers.get() == [5] * len(everything)
        process.join()
        assert process.exitcode == 0
        assert all((getattr(found, "array", found) == 1).all() for found in everything)
        with context.Pool(2) as pool:
            if sys.argv[1] == "fork":
                assert pool.map(total_of_global, range(4)) == [N] * 4
                X[:] = 2
                assert pool.map(total_of_global, range(4)) == [N] * 4
            X[:] = 3
            assert pool.map(total, [X] * 4) == [3 * N] * 4
        print("right")
"""


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_processes_and_pools_of_the_drop_in(interpreter, method):
    finished = interpreter(DROP_IN, method)
    assert finished.err == ""
    assert finished.check() == "right\n"


# ---- What the kernel refuses ---------------------------------------------------------------------

REFUSED = """
    import os, resource, sys
    import numpy, shoal

    def zeros(i):
        return numpy.zeros(50_000)

    with shoal.Pool(1) as pool:
        array = pool.apply(zeros, (0,))
    resource.setrlimit(resource.RLIMIT_DATA, (4096, resource.RLIM_INFINITY))
    pid = os.fork()
    if pid == 0:
        if sys.argv[1] == "touch":
            array.sum()
        os._exit(0)
    resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY,) * 2)
    array[:] = 1
    _, status = os.waitpid(pid, 0)
    print(os.waitstatus_to_exitcode(status), float(array.sum()))
"""


@pytest.mark.parametrize("action,code", [("look away", 0), ("touch", -signal.SIGSEGV)])
def test_a_child_that_cannot_have_its_own_is_told_and_sees_nothing(interpreter, action, code):
    finished = interpreter(REFUSED, action)
    assert finished.check().split() == [str(code), "50000.0"]
    first = finished.err.splitlines()[0]
    assert "arrays that its parent received from other processes" in first
    assert "errno 12. Raise vm.max_map_count, RLIMIT_DATA" in first
