# SPDX-License-Identifier: Apache-2.0
"""Workers of the drop-in's spawn and forkserver pools start afresh, as the standard library's do:
what a task sees there is what it sees in those. The programs here run under both.
"""

from __future__ import annotations

import os
import signal
import textwrap

import pytest
from shoal._workers._main_module import _read

METHODS = ["spawn", "forkserver"]

STATE = """
import logging, os, sys
import multiprocessing
from multiprocessing import process
from concurrent.futures import ProcessPoolExecutor

at_import = multiprocessing.current_process().name.split("-")[0], __name__
changed = "as imported"

class Registered(type):
    names = set()
    def __new__(cls, name, bases, namespace):
        if name in cls.names:
            raise TypeError(name + " is made twice")
        cls.names.add(name)
        return super().__new__(cls, name, bases, namespace)

class Thing(metaclass=Registered):
    def __init__(self, value):
        self.value = value

default = Thing(1)

def look(thing):
    main = sys.modules["__main__"]
    me = multiprocessing.current_process()
    assert type(thing) is type(default) is Thing
    return {
        "method": multiprocessing.get_start_method(allow_none=True),
        "level": multiprocessing.get_logger().level,
        "original folder": process.ORIGINAL_DIR,
        "folder": os.getcwd(),
        "main": (main.__name__, os.path.basename(main.__file__), look.__module__),
        "alias": sys.modules["__mp_main__"] is main,
        "at import": at_import,
        "changed": changed,
        "name": me.name.split("-")[0],
        "daemon": me.daemon,
        "authkey": bytes(me.authkey),
        "parent": multiprocessing.parent_process().name,
        "arguments": sys.argv[1:],
        "path": sys.path[0],
        "variable": os.environ.get("SET_LATE"),
        "a thing": thing,
    }

if __name__ == "__main__":
    method, default_method, folder = sys.argv[1:4]
    if default_method != "none":
        multiprocessing.set_start_method(default_method)
    multiprocessing.current_process().authkey = b"a key"
    multiprocessing.log_to_stderr(logging.ERROR)
    context = multiprocessing.get_context(method)
    changed = "in the program"
    if method == "spawn":
        os.environ["SET_LATE"] = "set"  # a fork server has the environment of its start
    os.chdir(folder)
    sys.argv.append("more")
    sys.path.insert(0, "/nowhere")
    with context.Pool(1) as pool:
        seen = [pool.apply(look, (Thing(2),))]
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        seen.append(executor.submit(look, Thing(3)).result())
    for state in seen:
        thing = state.pop("a thing")
        print(type(thing) is Thing, thing.value)
        for key, value in state.items():
            print(key, value)
"""


@pytest.mark.parametrize("default", ["none", *METHODS])
@pytest.mark.parametrize("method", METHODS)
def test_a_task_finds_what_it_finds_in_the_standard_librarys_worker(
    interpreter, tmp_path, method: str, default: str
) -> None:
    program = tmp_path / "state.py"
    program.write_text(STATE)
    arguments = (program, method, default, str(tmp_path))
    stock = interpreter(*arguments).check()
    assert interpreter(*arguments, env={"SHOAL_RUN": "1"}).check() == stock


@pytest.mark.parametrize(
    "guard",
    [
        'if __name__ == "__main__":',
        "if '__main__' == __name__:",
        'if not __name__ != "__main__" and ready:',
        'if __name__ in ("x", "__main__"):',
        "if __name__ is MAIN:",
        'if name.endswith("main__"):',
        'if multiprocessing.current_process().name == "MainProcess":',
        'while __name__ == "__main__":',
    ],
)
def test_a_guard_is_seen_and_what_it_guards_is_not_there_after_the_import(guard: str) -> None:
    source = """
        import a.b, c as d
        from e import f as g
        name = __name__
        h, (i, *j) = k["l"] = m.n = 1, (2, 3)
        for o in (p := [q for q in range(3)]):
            with open(r) as s:
                t: int = lambda: (u := 1)
        try:
            def v(w):
                x = w
        except ValueError:
            class y:
                z = 1
        """
    names = _read(textwrap.dedent(source) + guard + "\n    only_here = 1\n")
    assert names == {*"adghijopstvy", "name"}
    assert _read(textwrap.dedent(source)) is None


def test_the_other_branch_of_a_guard_is_for_children() -> None:
    assert _read('if __name__ == "__main__":\n    a = 1\nelse:\n    b = 1') == {"b"}
    assert _read('if __name__ != "__main__":\n    a = 1\nelse:\n    b = 1') == {"a"}
    assert _read('__name__ == "__main__" and main()') == set()
    assert _read("# if __name__ == '__main__':\nmain()") is None


def program(interpreter, source: str, *arguments: str) -> str:
    return interpreter(source, *arguments, env={"SHOAL_RUN": "1"}).check()


@pytest.mark.parametrize("method", METHODS)
def test_what_the_guarded_part_defines_is_sent(interpreter, method: str) -> None:
    program(
        interpreter,
        """
        import multiprocessing, sys
        at_top = []

        def uses(value):
            return at_top, only_below, value

        if __name__ == "__main__":
            at_top.append("changed, but not there")
            only_below = {"a": 1}

            class Below:
                pass

            def below(value):
                return uses(type(value) is Below)

            with multiprocessing.get_context(sys.argv[1]).Pool(1) as pool:
                assert pool.apply(below, (Below(),)) == ([], {"a": 1}, True)
                assert pool.apply(lambda: uses(2)) == ([], {"a": 1}, 2)
        """,
        method,
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_fork_pool_in_a_fresh_process_has_what_is_defined_later(interpreter, method: str) -> None:
    program(
        interpreter,
        """
        import multiprocessing, sys

        def answer():
            return "old"

        def ask(queue):
            import shoal
            with shoal.Pool(1) as pool:  # its workers are copies of this process
                first = pool.apply(answer)
                global_answer = globals()
                exec("def answer():\\n    return 'new'", global_answer)
                queue.put((first, pool.apply(global_answer["answer"])))

        if __name__ == "__main__":
            context = multiprocessing.get_context(sys.argv[1])
            queue = context.SimpleQueue()
            process = context.Process(target=ask, args=(queue,))
            process.start()
            assert queue.get() == ('old', 'new')
            process.join()
        """,
        method,
    )


@pytest.mark.parametrize("method", METHODS)
def test_what_a_library_adds_to_the_preparation_arrives_before_the_main_module(
    interpreter, method: str
) -> None:
    # So does coverage: an object that acts when it is unpickled. (From 3.14 on the fork server has
    # imported the main module by then.)
    interpreter.folder.joinpath("stowaway.py").write_text(
        """
import multiprocessing.process
aboard = []

class Stowaway:
    def __getstate__(self):
        return {"from": "parent"}

    def __setstate__(self, state):
        aboard.append(state["from"])
        stock = multiprocessing.process.BaseProcess._bootstrap

        def bootstrap(self, *arguments, **options):
            aboard.append("bootstrap")
            return stock(self, *arguments, **options)

        multiprocessing.process.BaseProcess._bootstrap = bootstrap
"""
    )
    source = """
        import multiprocessing, sys
        import multiprocessing.spawn as spawn
        import stowaway

        at_import = list(stowaway.aboard)

        def look():
            return at_import, stowaway.aboard

        if __name__ == "__main__":
            stock = spawn.get_preparation_data

            def get_preparation_data(name):
                return {**stock(name), "stowaway": stowaway.Stowaway()}

            spawn.get_preparation_data = get_preparation_data
            with multiprocessing.get_context(sys.argv[1]).Pool(1) as pool:
                print(pool.apply(look))
        """
    path = {"PYTHONPATH": str(interpreter.folder)}
    stock = interpreter(source, method, env=path).check()
    assert "['parent', 'bootstrap']" in stock
    assert interpreter(source, method, env={"SHOAL_RUN": "1", **path}).check() == stock


@pytest.mark.parametrize("method", METHODS)
def test_a_program_without_a_guard_runs_once(interpreter, method: str) -> None:
    out = program(
        interpreter,
        """
        import multiprocessing, sys

        def double(value):
            return 2 * value

        print("once", flush=True)
        with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
            print(sum(pool.map(double, range(10))))
        """,
        method,
    )
    assert out.split() == ["once", "90"]


@pytest.mark.parametrize("trouble", ["raise ImportError('not there')", "sys.exit(3)"])
@pytest.mark.parametrize("method", METHODS)
def test_a_main_module_that_others_cannot_import_is_one_error(
    interpreter, method: str, trouble: str
) -> None:
    # The standard library's pool starts one worker after the other, for ever.
    program(
        interpreter,
        f"""
        import multiprocessing, sys
        from concurrent.futures import ProcessPoolExecutor
        from concurrent.futures.process import BrokenProcessPool
        if __name__ != "__main__":
            {trouble}

        def double(value):
            return 2 * value

        def fails(call, *arguments):
            try:
                call(*arguments)
            except Exception as error:
                return error

        if __name__ == "__main__":
            context = multiprocessing.get_context(sys.argv[1])
            with context.Pool(1) as pool:
                error = fails(pool.map, double, [1, 2])
                assert "fresh workers in a row could not be initialized" in str(error), error
                assert "a worker could not import the main module" in str(error), error
                assert sys.argv[2] in str(error), error
            with ProcessPoolExecutor(1, mp_context=context) as executor:
                error = fails(executor.submit(double, 1).result)
                assert type(error) is BrokenProcessPool, error
        """,
        method,
        "ImportError: not there" if "raise" in trouble else "SystemExit: 3",
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_main_module_that_ends_its_process_is_an_error(interpreter, method: str) -> None:
    program(
        interpreter,
        """
        import multiprocessing, os, sys
        if __name__ != "__main__":
            os._exit(3)

        def double(value):
            return 2 * value

        if __name__ == "__main__":
            with multiprocessing.get_context(sys.argv[1]).Pool(1) as pool:
                try:
                    pool.map(double, [1, 2])
                except Exception as error:
                    print(error)
        """,
        method,
    )


FORK_SERVER = """
import multiprocessing, os, signal, sys, time
from multiprocessing import forkserver

def pid(_=0):
    return os.getpid()

def mask(queue):
    queue.put(signal.pthread_sigmask(signal.SIG_BLOCK, ()))

def ancestors():
    found, process = [], os.getpid()
    while process > 1:
        with open(f"/proc/{process}/stat") as file:
            process = int(file.read().rpartition(")")[2].split()[1])
        found.append(process)
    return found

if __name__ == "__main__":
    context = multiprocessing.get_context("forkserver")
"""


def test_workers_come_from_the_fork_server(interpreter) -> None:
    interpreter.folder.joinpath("preloaded.py").write_text("import os\nPID = os.getpid()\n")
    finished = interpreter(
        FORK_SERVER
        + """
    context.set_forkserver_preload(["preloaded"])
    with context.Pool(2) as pool:
        server = forkserver._forkserver._forkserver_pid
        assert server in pool.apply(ancestors)
        assert pool.apply(eval, ("__import__('preloaded').PID",)) == server
        workers = multiprocessing.active_children()
        assert sorted(worker.pid for worker in workers) == sorted(pool.worker_pids())
        process = context.Process()
        assert process.name == "ForkServerProcess-3", process.name
    del pool, workers, process  # process objects keep their descriptors
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with context.Pool(1) as another:
            pass
        del another
        assert len(os.listdir("/proc/self/fd")) == before
""",
        env={"SHOAL_RUN": "1", "PYTHONPATH": str(interpreter.folder)},
    )
    finished.check()


def test_a_fork_server_that_a_pool_has_started_blocks_no_signal(interpreter) -> None:
    program(
        interpreter,
        FORK_SERVER
        + """
    with context.Pool(1) as pool:
        queue = context.SimpleQueue()
        process = context.Process(target=mask, args=(queue,))
        process.start()
        assert queue.get() == set()
        process.join()
""",
    )


def test_a_pool_outlives_the_fork_server(interpreter) -> None:
    program(
        interpreter,
        FORK_SERVER
        + """
    with context.Pool(2) as pool:
        for _ in range(3):
            assert len(pool.map(pid, range(20))) == 20
            os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)
            result = pool.map_async(pid, range(20))
            try:
                assert len(result.get()) == 20
            except Exception as error:  # a task may have been at work in a worker that died with it
                assert type(error).__name__ == "WorkerDied", error
        assert len(pool.map(pid, range(20))) == 20
    with context.Pool(1) as pool:
        assert pool.map(pid, [0])
""",
    )


def test_nothing_outlives_a_program_that_is_killed(interpreter, wait_until) -> None:
    process = interpreter.start(
        FORK_SERVER
        + """
    pool = context.Pool(2)
    pool.map(pid, range(10))
    print(*pool.worker_pids(), flush=True)
    pool.map(time.sleep, [1000, 1000])
""",
        env={"SHOAL_RUN": "1"},
    )
    pids = [int(word) for word in process.stdout.readline().split()]
    assert len(pids) == 2
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), "they end")


def test_an_initializer_runs_once_in_each_fresh_worker(interpreter) -> None:
    # As Django's test runner has it: a second call in one process is an error.
    for method in METHODS:
        program(
            interpreter,
            """
            import multiprocessing, sys
            ready = False

            def initialize(counter):
                global ready
                if ready:
                    raise RuntimeError("called twice")
                ready = multiprocessing.get_start_method() != "fork"
                with counter.get_lock():
                    counter.value += 1

            def is_ready(_):
                return ready

            if __name__ == "__main__":
                multiprocessing.set_start_method(sys.argv[1])
                ready = True  # here it is done already
                counter = multiprocessing.Value("i")
                with multiprocessing.Pool(2, initialize, (counter,)) as pool:
                    assert all(pool.map(is_ready, range(10), chunksize=1))
                assert counter.value <= 2
            """,
            method,
        )
