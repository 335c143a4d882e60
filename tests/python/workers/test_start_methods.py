# SPDX-License-Identifier: Apache-2.0
"""What a worker has of the program that made its pool, under each start method, and from where the
program may come.

"clean" is start="zygote" while another thread runs: its template is a fresh interpreter.
"""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import textwrap
import zipfile

import pytest
from shoal._workers._template import Kind, Template

KINDS = ("zygote", "clean", "fork", "spawn")
# In front of programs: `make(kind)` makes the pool.
HEAD = """
import os, signal, sys, threading, time
import shoal

def make(kind, workers=2, **options):
    if kind != "clean":
        return shoal.Pool(workers, start=kind, **options)
    leave = threading.Event()
    thread = threading.Thread(target=leave.wait)
    thread.start()
    try:
        return shoal.Pool(workers, **options)
    finally:
        leave.set()
        thread.join()

KIND = sys.argv[1]
"""


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def program(interpreter, kind):
    """Runs a program that has `make` and KIND; gives what it printed."""

    def run(source, *arguments, **options):
        finished = interpreter(HEAD + textwrap.dedent(source), kind, *arguments, **options)
        assert finished.err == ""
        return finished.check()

    return run


# ---- What is chosen, and why ---------------------------------------------------------------------


def test_statistics_say_what_the_template_is_and_why(program, kind):
    said = program('with make(KIND) as pool: print(pool.statistics()["template"])').strip()
    if kind == "spawn":
        assert said == "spawn: every worker is a fresh interpreter"
    elif kind == "clean":
        assert said.startswith("a clean template, because Python threads are running (Thread-1")
    else:
        assert said == "a snapshot of this process"


def test_the_users_script_runs_once(program):
    out = program(
        """
        print("runs", flush=True)
        def task(x):
            return os.getpid(), __name__
        with make(KIND) as pool:
            found = pool.map(task, range(20), 1)
        assert os.getpid() not in {pid for pid, _ in found}
        assert {name for _, name in found} == {"__main__"}
        """
    )
    assert out == "runs\n"


# ---- What a worker has of the process ------------------------------------------------------------


def test_workers_have_the_process_as_it_is_when_the_pool_is_made(program):
    program(
        """
        import resource
        def facts(_=None):
            umask = os.umask(0)
            os.umask(umask)
            return dict(
                environment=dict(os.environ), cwd=os.getcwd(), path=sys.path, argv=sys.argv,
                umask=umask, recursion=sys.getrecursionlimit(), executable=sys.executable,
                flags=tuple(sys.flags), options=dict(sys._xoptions), warn=list(sys.warnoptions),
                files=resource.getrlimit(resource.RLIMIT_NOFILE), nice=os.nice(0),
                affinity=os.sched_getaffinity(0), group=os.getpgrp(), session=os.getsid(0),
                user=os.getresuid(), main=sys.modules["__main__"].__file__,
                streams=[os.readlink(f"/proc/self/fd/{fd}") for fd in (0, 1, 2)],
                hup=signal.getsignal(signal.SIGHUP), hash=hash("text"),
                blocked=signal.SIGUSR2 in signal.pthread_sigmask(signal.SIG_BLOCK, ()),
            )
        os.environ["SHOAL_TEST_SET"] = "yes"
        os.environ.pop("HOME", None)
        os.mkdir("elsewhere")
        os.chdir("elsewhere")
        sys.path.insert(0, os.getcwd())
        sys.argv.append("more")
        os.umask(0o027)
        sys.setrecursionlimit(1234)
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
        os.nice(1)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
        with make(KIND) as pool:
            mine, theirs = facts(), pool.apply(facts)
        if KIND in ("clean", "spawn") and not sys.flags.hash_randomization == 0:
            del mine["hash"], theirs["hash"]
        assert theirs == mine, {k: (mine[k], theirs[k]) for k in mine if mine[k] != theirs[k]}
        """
    )


@pytest.mark.parametrize("options", [("-O",), ("-B", "-X", "utf8"), ("-W", "ignore::UserWarning")])
def test_workers_have_the_flags_of_the_interpreter(interpreter, kind, options):
    finished = interpreter(
        HEAD
        + textwrap.dedent(
            """
            def flags():
                return tuple(sys.flags), dict(sys._xoptions), sys.warnoptions, __debug__
            with make(KIND) as pool:
                assert pool.apply(flags) == flags(), (pool.apply(flags), flags())
            """
        ),
        kind,
        options=options,
    )
    finished.check()
    assert finished.err == ""


def test_changes_after_the_pool_was_made_stay_in_the_program(program):
    """Workers that come later have what the first ones had: all of a pool are alike."""
    program(
        """
        def seen():
            return os.environ.get("LATE"), os.getcwd(), "late" in sys.path, sys.getrecursionlimit()
        with make(KIND, 1, maxtasksperchild=1) as pool:
            first = pool.apply(seen)
            os.environ["LATE"] = "set"
            os.mkdir("late")
            os.chdir("late")
            sys.path.append("late")
            sys.setrecursionlimit(2222)
            pids = {pool.apply(os.getpid) for _ in range(4)}
            assert len(pids) == 4
            assert pool.apply(seen) == first == (None, os.path.dirname(os.getcwd()), False, 1000)
        with make(KIND, 1) as pool:  # the next pool is never stale
            assert pool.apply(seen) == ("set", os.getcwd(), True, 2222)
        """
    )


def test_settings_of_libraries_hold_in_workers_unless_they_are_spawned(program):
    """A thread that happens to run must not change what tasks compute, warn or log."""
    program(
        """
        import decimal, faulthandler, gc, locale, logging, warnings
        import numpy
        def facts():
            import decimal, faulthandler, gc, locale, logging, warnings
            import numpy
            log = logging.getLogger("some.part")
            return dict(
                decimal=str(decimal.Decimal(1) / 3), traps=dict(decimal.getcontext().traps),
                numpy=numpy.geterr(), shown=str(numpy.array([1 / 3])),
                root=logging.getLogger().level, log=(log.level, log.disabled, log.propagate),
                off=logging.root.manager.disable, filters=list(warnings.filters),
                locale=locale.setlocale(locale.LC_ALL), switch=sys.getswitchinterval(),
                gc=(gc.get_threshold(), gc.isenabled()), faults=faulthandler.is_enabled(),
            )
        class Own(UserWarning):
            pass
        decimal.getcontext().prec = 7
        numpy.seterr(divide="raise")
        numpy.set_printoptions(precision=3)
        logging.getLogger().setLevel(logging.DEBUG)
        logging.getLogger("some.part").setLevel(logging.ERROR)
        logging.getLogger("some.part").propagate = False
        logging.disable(5)
        warnings.filterwarnings("error", message="deadly", category=UserWarning)
        locale.setlocale(locale.LC_NUMERIC, "C.UTF-8")
        sys.setswitchinterval(0.01)
        gc.set_threshold(501, 5, 5)
        faulthandler.enable()
        def warn():
            import warnings
            warnings.warn("deadly", UserWarning)
        with make(KIND) as pool:
            mine, theirs = facts(), pool.apply(facts)
            if KIND == "spawn":
                assert theirs["decimal"] != mine["decimal"]  # fresh, as it was asked to be
                sys.exit()
            assert theirs == mine, {k: (mine[k], theirs[k]) for k in mine if mine[k] != theirs[k]}
            try:
                pool.apply(warn)
                assert False
            except UserWarning:
                pass
        """,
        env={"PYTHONFAULTHANDLER": ""},
    )


def test_settings_that_cannot_travel_are_left_out(program):
    program(
        """
        import logging, warnings
        class Own(UserWarning):
            pass
        warnings.filterwarnings("error", category=Own)
        warnings.filterwarnings("error", message="deadly", category=UserWarning)
        class OddLogger(logging.Logger):
            level = property(lambda self: open(os.devnull), lambda self, value: None)
        logging.setLoggerClass(OddLogger)
        logging.getLogger("odd")
        with make(KIND) as pool:
            assert pool.map(abs, [-1, -2]) == [1, 2]
        """,
        options=("-W", "ignore::ResourceWarning"),
    )


def test_forked_workers_have_the_handlers_of_the_program(program):
    program(
        """
        def here(number, frame):
            raise SystemExit
        def handlers():
            numbers = signal.SIGUSR1, signal.SIGTERM, signal.SIGALRM
            return [signal.getsignal(number) == signal.SIG_DFL for number in numbers]
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGALRM):
            signal.signal(number, here)
        with make(KIND) as pool:
            assert pool.apply(handlers) == [KIND in ("spawn", "clean")] * 3
        """
    )


def test_time_limits_hold_when_the_thread_that_makes_the_pool_blocks_all_signals(program):
    """Blocked ones are inherited; the one that interrupts tasks must get through."""
    program(
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        with make(KIND, 1) as pool:
            before = pool.apply(os.getpid)
            try:
                pool.apply(time.sleep, (1000,), timeout=0.05)
                assert False
            except shoal.TaskTimeout:
                pass
            assert pool.apply(os.getpid) == before  # interrupted, not killed
        """
    )


def test_output_of_tasks_goes_where_the_programs_goes(program, kind):
    out = program(
        """
        print("before", end=" ")  # not flushed: must not come twice
        def say(x):
            print("task", x)
            os.write(1, b"")
        with make(KIND, 1) as pool:
            pool.map(say, range(3))
            pool.close()
            pool.join()
        print("after")
        """
    )
    assert out == "before task 0\ntask 1\ntask 2\nafter\n"


def test_tasks_do_not_read_the_programs_input(program):
    out = program(
        """
        with make(KIND) as pool:
            assert pool.map(lambda _: sys.stdin.read(), range(4), 1) == [""] * 4
        print(sys.stdin.read())
        """,
        input="for the program",
    )
    assert out == "for the program\n"


# ---- What multiprocessing says -------------------------------------------------------------------


def test_workers_are_processes_of_multiprocessing(program):
    program(
        """
        import multiprocessing as mp
        mp.current_process().name = "Chief"
        def facts(_):
            me, parent = mp.current_process(), mp.parent_process()
            time.sleep(0.01)
            return (me.name, me.daemon, me.pid == os.getpid(), me._identity), (
                parent.name, parent.pid, parent.is_alive(), bytes(me.authkey))
        with make(KIND) as pool:
            found = pool.map(facts, range(200), 1)
            wanted = {(f"ShoalPoolWorker-{n}", True, True, (n,)) for n in (1, 2)}
            assert {one for one, _ in found} == wanted, found
            authkey = bytes(mp.current_process().authkey)
            assert {two for _, two in found} == {("Chief", os.getpid(), True, authkey)}
            assert mp.active_children() == []
        assert mp.parent_process() is None
        """
    )


def test_managers_can_be_used_in_workers(program):
    program(
        """
        import multiprocessing as mp
        def put(shared, key):
            shared[key] = os.getpid()
        if __name__ == "__main__":
            with mp.get_context("fork").Manager() as manager:
                shared = manager.dict()
                with make(KIND) as pool:
                    pool.starmap(put, [(shared, key) for key in range(5)])
                assert sorted(shared.keys()) == list(range(5))
        """,
        options=("-W", "ignore::DeprecationWarning"),
    )


def test_worker_numbers_stay_within_the_number_of_workers(program):
    """Programs take them for places: a worker that comes later has the place of one that left."""
    program(
        """
        import multiprocessing as mp
        def place():
            return mp.current_process()._identity, mp.current_process().name
        with make(KIND, maxtasksperchild=1) as pool:
            found = {pool.apply(place) for _ in range(8)}
        assert found <= {((n,), f"ShoalPoolWorker-{n}") for n in (1, 2)}, found
        """
    )


# ---- Modules -------------------------------------------------------------------------------------


def test_modules_first_imported_in_a_worker_are_found(program, tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "late_module.py").write_text("VALUE = 7\nclass Thing:\n    pass\n")
    program(
        """
        sys.path.append(sys.argv[2])
        def value():
            import late_module
            return late_module.VALUE
        def thing():
            import late_module
            return late_module.Thing()
        with make(KIND) as pool:
            assert "late_module" not in sys.modules
            assert pool.apply(value) == 7
            assert "late_module" not in sys.modules
            made = pool.apply(thing)
            import late_module
            assert type(made) is late_module.Thing
        """,
        str(tmp_path / "lib"),
    )


def test_modules_imported_after_the_pool_was_made_are_imported_in_workers(program, tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "later.py").write_text("def double(x):\n    return 2 * x\n")
    program(
        """
        sys.path.append(sys.argv[2])
        with make(KIND) as pool:
            pool.apply(abs, (1,))
            import later
            assert pool.map(later.double, range(3)) == [0, 2, 4]
            assert pool.apply(lambda x: later.double(x), (4,)) == 8
        """,
        str(tmp_path / "lib"),
    )


def test_modules_that_cannot_be_imported_again_do_no_harm(program, tmp_path):
    """A clean template imports what the program has; what fails there fails only where needed."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "once.py").write_text(
        "import os\nif 'ONCE' in os.environ:\n    raise RuntimeError('twice')\nVALUE = 1\n"
    )
    program(
        """
        sys.path.append(sys.argv[2])
        import once
        os.environ["ONCE"] = "yes"
        with make(KIND) as pool:
            assert pool.map(abs, [-1]) == [1]
            try:
                assert pool.apply(lambda: once.VALUE) == 1
                assert KIND in ("zygote", "fork")
            except NameError as error:
                assert KIND in ("clean", "spawn") and "could not be sent" in str(error)
        """,
        str(tmp_path / "lib"),
    )


# ---- Where the program comes from ----------------------------------------------------------------

SOURCE = """
print("runs", flush=True)
import sys
WORD = "answer"
class Pair:
    def __init__(self, x): self.x = x
def helper(x): return x + 1
def f(x): return WORD, helper(x), Pair(x)
def go(kind):
    found = make(kind)
    with found as pool:
        word, value, pair = pool.apply(f, (41,))
        assert type(pair) is Pair and pair.x == 41
        print(word, value, pool.map(lambda x: helper(x), range(3)))
"""
SAID = ["runs", "answer 42 [1, 2, 3]"]


def started(*arguments, cwd, input=None):
    finished = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, input=input, capture_output=True, text=True
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    return finished.stdout.splitlines()


def test_program_in_a_file_without_a_guard(kind, tmp_path):
    path = tmp_path / "a program.py"
    path.write_text(HEAD + SOURCE + "go(KIND)\n")
    assert started(str(path), kind, cwd=tmp_path) == SAID


def test_program_read_from_standard_input(kind, tmp_path):
    assert started("-", kind, cwd=tmp_path, input=HEAD + SOURCE + "go(KIND)\n") == SAID


def test_program_given_by_c(kind, tmp_path):
    assert started("-c", HEAD + SOURCE + "go(KIND)\n", kind, cwd=tmp_path) == SAID


def test_package_started_with_m(kind, tmp_path):
    package = tmp_path / "pack"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "part.py").write_text("def one():\n    return 1\n")
    (package / "__main__.py").write_text(
        HEAD + SOURCE.replace("x + 1", "x + one()") + "from .part import one\ngo(KIND)\n"
    )
    assert started("-m", "pack", kind, cwd=tmp_path) == SAID


def test_program_in_a_zip_file(kind, tmp_path):
    with zipfile.ZipFile(tmp_path / "app.zip", "w") as file:
        file.writestr(
            "__main__.py", HEAD + "from part import *\nimport part\n" + SOURCE + "go(KIND)"
        )
        file.writestr("part.py", "def from_part(x):\n    return x\n")
    assert started("app.zip", kind, cwd=tmp_path) == SAID


def test_program_whose_file_is_gone(kind, tmp_path):
    path = tmp_path / "gone.py"
    path.write_text(HEAD + SOURCE + "import os\nos.unlink(__file__)\ngo(KIND)\n")
    assert started(str(path), kind, cwd=tmp_path) == SAID


def test_program_executed_without_a_file_as_in_a_notebook(kind, tmp_path):
    """Cells are executed in `__main__`, which has no file; functions change from cell to cell."""
    cells = [
        HEAD + SOURCE,
        "go(KIND)",
        "pool = make(KIND)",
        "def later(x): return helper(x) * 10",
        "print(pool.map(later, range(3)))",
        "def helper(x): return x - 1",
        "print(pool.map(later, range(3)))",
        "class Pair:\n    def __init__(self, x): self.y = x",
        "pair = pool.apply(f, (5,))[2]\nassert type(pair) is Pair and pair.y == 5",
        "pool.terminate()",
    ]
    path = tmp_path / "kernel.py"
    path.write_text(
        "import sys, types\n"
        "main = types.ModuleType('__main__')\n"
        "sys.modules['__main__'] = main\n"
        f"for n, cell in enumerate({cells!r}):\n"
        "    exec(compile(cell, f'<cell {n}>', 'exec'), vars(main))\n"
    )
    said = started(str(path), kind, cwd=tmp_path)
    assert said == [*SAID, "[10, 20, 30]", "[-10, 0, 10]"]


def test_program_typed_into_the_interactive_interpreter(kind, tmp_path):
    primary, secondary = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-i", "-q", "-c", HEAD.replace("sys.argv[1]", repr(kind))],
        stdin=secondary,
        stdout=secondary,
        stderr=secondary,
        cwd=tmp_path,
        env={**os.environ, "PYTHON_BASIC_REPL": "1", "TERM": "dumb"},
        start_new_session=True,
    )
    os.close(secondary)
    said = b""

    def read_until(what):
        nonlocal said
        while what not in said:
            assert select.select([primary], [], [], 60)[0], said.decode()
            said += os.read(primary, 4096)
        said = said.partition(what)[2]

    try:
        for line in (
            "pool = make(KIND)",
            "def f(x): return x + offset\n",
            "offset = 40",
            "print('first', pool.map(f, [1, 2]))",
        ):
            os.write(primary, line.encode() + b"\n")
        read_until(b"first [41, 42]")
        os.write(primary, b"offset = 50\nprint('then', pool.apply(lambda: f(1)))\n")
        read_until(b"then 51")
        os.write(primary, b"pool.terminate()\nprint('do' + 'ne')\n")
        read_until(b"done")
        os.write(primary, b"exit()\n")  # a Ctrl-D before the next prompt may be lost
        assert process.wait() == 0
    finally:
        process.kill()
        process.wait()
        os.close(primary)


def test_threads_of_libraries_with_fork_handlers_hinder_no_snapshot(interpreter):
    """jemalloc's background thread, which pyarrow starts, is known by the name that it has."""
    interpreter(
        """
        import ctypes, os, shoal, sys
        libc = ctypes.CDLL(None)
        thread = ctypes.c_ulong()
        before = set(os.listdir("/proc/self/task"))
        assert libc.pthread_create(ctypes.byref(thread), None, libc.pause, None) == 0
        (native,) = set(os.listdir("/proc/self/task")) - before
        DATA = {}  # only a copy of this process has what is put in here now
        DATA["there"] = True

        def template(name):
            with open(f"/proc/self/task/{native}/comm", "w") as file:
                file.write(name)
            with shoal.Pool(1) as pool:
                return pool.statistics()["template"], pool.apply(abs, (-1,))

        assert template("jemalloc_bg_thd") == ("a snapshot of this process", 1)
        found, _ = template("another")
        assert "1 native threads of unknown origin" in found, found
        os._exit(0)  # the thread waits for ever
        """
    ).check()


def test_agents_that_cannot_live_are_not_started_for_ever(interpreter):
    interpreter(
        """
        import multiprocessing.spawn, shoal
        multiprocessing.spawn.set_executable("/bin/false")
        pool = shoal.Pool(1, start="spawn")
        try:
            pool.apply(abs, (-1,))
        except shoal.InitializerFailed as error:
            assert "gave up" in str(error), error
        else:
            assert False
        pool.terminate()
        """
    ).check()


def test_a_template_says_what_it_is_and_why() -> None:
    clean = Template(Kind.CLEAN, "threads are running")
    assert str(clean) == "a clean template, because threads are running"
    assert str(Template(Kind.SNAPSHOT)) == "a snapshot of this process"
    copies = {kind for kind in Kind if Template(kind).is_copy}
    assert copies == {Kind.SNAPSHOT, Kind.FORK}
