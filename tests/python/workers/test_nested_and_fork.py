# SPDX-License-Identifier: Apache-2.0
"""Pools in tasks, forks around pools, the interpreter's exit and Ctrl-C: nothing hangs, nothing
stays, nothing is noisy.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
import shoal
import tasks
from pool_kinds import SHOAL, WATCHDOG, make_executor, make_pool

pytestmark = [WATCHDOG, pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")]
STARTS = ("zygote", "fork", "spawn")
_CHAINED = re.compile("(?m)^(During handling of the above|The above exception was)")


@pytest.fixture(params=SHOAL)
def kind(request):
    return request.param


@pytest.fixture(params=STARTS)
def start(request):
    return request.param


def in_fork(function):
    """What `function` returned in a forked child, as text."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.write(write, str(function()).encode())
            code = 0
        except BaseException as error:
            os.write(write, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    _, status = os.waitpid(pid, 0)
    return text, os.waitstatus_to_exitcode(status)


def session_of(pid: int) -> list[int]:
    """Live processes of a session, without zombies."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == pid and fields[0] != "Z":
            found.append(int(entry.name))
    return found


# ---- Nested pools --------------------------------------------------------------------------------


def _inner_pool(start):
    with shoal.Pool(2, start=start) as pool:
        return pool.map(tasks.square, range(5))


def _inner_executor(start):
    with shoal.Executor(2, start=start) as executor:
        return list(executor.map(tasks.square, range(5)))


@pytest.mark.parametrize("inner", STARTS)
def test_tasks_may_use_pools_and_executors(kind, inner):
    with make_pool(kind) as pool:
        assert pool.map(_inner_pool, [inner] * 2, 1) == [[0, 1, 4, 9, 16]] * 2
        assert pool.apply(_inner_executor, (inner,)) == [0, 1, 4, 9, 16]


def _three_deep(depth):
    if depth == 0:
        return [os.getpid()]
    with shoal.Pool(1) as pool:
        return [os.getpid(), *pool.apply(_three_deep, (depth - 1,))]


def test_pools_nest_three_deep():
    with shoal.Pool(1) as pool:
        assert len(set(pool.apply(_three_deep, (2,)))) == 3


def _leave_a_pool_open(_):
    pool = shoal.Pool(1)
    tasks.state.append(pool)
    return pool.apply(tasks.pid)


def test_workers_of_a_killed_worker_end_with_it(wait_until):
    with shoal.Pool(1) as pool:
        pid = pool.apply(_leave_a_pool_open, (0,))
        assert os.path.exists(f"/proc/{pid}")
        os.kill(pool.worker_pids()[0], signal.SIGKILL)
        wait_until(lambda: _gone(pid))


def test_workers_of_a_worker_that_ends_in_order_end_with_it(wait_until):
    with shoal.Pool(1) as pool:
        pid = pool.apply(_leave_a_pool_open, (0,))
    wait_until(lambda: _gone(pid))


def _gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


# ---- Forks ---------------------------------------------------------------------------------------


def test_pool_in_the_child_of_a_fork_says_what_to_do(kind):
    with make_pool(kind) as pool, make_executor(kind) as executor:
        assert pool.apply(tasks.square, (2,)) == 4
        result = pool.apply_async(tasks.square, (2,))
        future = executor.submit(tasks.square, 2)
        for use in (
            lambda: pool.apply(tasks.square, (3,)),
            lambda: pool.map(tasks.square, [3]),
            lambda: pool.imap(tasks.square, [3]),
            lambda: pool.apply_async(tasks.square, (3,)),
            lambda: executor.submit(tasks.square, 3),
            lambda: executor.map(tasks.square, [3]),
            pool.worker_pids,
            pool.statistics,
        ):
            text, code = in_fork(use)
            assert text.startswith("ForkedPool:"), text
            assert "make a new" in text
            assert code == 1
        assert result.get() == 4
        assert future.result() == 4


def test_open_results_in_the_child_of_a_fork_raise_and_do_not_wait(kind, tmp_path):
    with make_pool(kind) as pool, make_executor(kind) as executor:
        go = str(tmp_path / "go")
        result = pool.apply_async(tasks.wait_for, (go,))
        many = pool.map_async(tasks.wait_for, [go] * 3)
        lazy = pool.imap(tasks.wait_for, [go] * 3)
        future = executor.submit(tasks.wait_for, go)
        uses = (result.get, many.get, lambda: next(lazy), future.result)
        texts = [in_fork(use)[0] for use in uses]
        Path(go).touch()
        assert all(text.startswith("ForkedPool:") for text in texts), texts
        assert result.get() is None
        assert many.get() == [None] * 3
        assert list(lazy) == [None] * 3
        assert future.result() is None


def test_ending_a_pool_in_the_child_of_a_fork_leaves_the_parents_alone(kind):
    with make_pool(kind) as pool:
        pool.apply(tasks.square, (2,))

        def end():
            pool.close()
            pool.terminate()
            pool.join()
            return "ended"

        assert in_fork(end) == ("ended", 0)
        assert pool.apply(tasks.square, (3,)) == 9


def test_child_of_a_fork_can_make_its_own_pool(kind):
    with make_pool(kind) as pool:
        pool.apply(tasks.square, (2,))

        def own():
            with make_pool(kind) as inner:
                return inner.map(tasks.square, [1, 2, 3])

        assert in_fork(own) == ("[1, 4, 9]", 0)
        assert pool.apply(tasks.square, (3,)) == 9


def test_fork_with_callbacks_under_way_harms_neither(kind, tmp_path):
    with make_pool(kind) as pool:
        go, heard = tmp_path / "go", threading.Semaphore(0)
        for _ in range(3):
            pool.apply_async(tasks.wait_for, (str(go),), callback=lambda _: heard.release())
        for _ in range(5):
            assert in_fork(lambda: "child") == ("child", 0)
        go.touch()
        for _ in range(3):
            heard.acquire()


def _fork_in_task(how):
    if how == "exit":
        text, code = in_fork(lambda: "child")
        return text, code
    if how == "subprocess":
        return subprocess.run(
            ["echo", "child"], capture_output=True, text=True, check=True
        ).stdout.strip(), 0
    if how == "system":
        return "child", os.system("true")
    pid = os.fork()
    if pid == 0:  # the child runs on, to the task's end and beyond
        os.execv("/bin/true", ["true"])
    return "child", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("how", ["exit", "subprocess", "system", "exec"])
def test_forks_in_tasks_harm_nothing(kind, how):
    with make_pool(kind) as pool:
        assert pool.map(_fork_in_task, [how] * 6, 1) == [("child", 0)] * 6
        assert pool.apply(tasks.square, (3,)) == 9


def _child_that_returns():
    """A fork whose child returns from the task: it must not answer in its parent's place."""
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return "parent"
    return "child"


def test_forked_child_that_returns_from_the_task_answers_nothing(kind):
    with make_pool(kind, 1) as pool:
        assert pool.apply(_child_that_returns) == "parent"
        assert pool.apply(tasks.square, (3,)) == 9


def test_multiprocessing_process_made_while_a_pool_is_open(kind):
    import multiprocessing

    with make_pool(kind) as pool:
        process = multiprocessing.get_context("fork").Process(target=os._exit, args=(5,))
        process.start()
        process.join()
        assert process.exitcode == 5
        process.close()
        assert pool.apply(tasks.square, (3,)) == 9


# ---- The interpreter's exit ----------------------------------------------------------------------


def exits_quietly(interpreter, source, code=0, out=""):
    process = interpreter.start(source)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout, stderr) == (code, out, "")
    deadline = time.monotonic() + 20
    while session_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert session_of(process.pid) == []


def test_exit_with_a_pool_open_is_quick_and_quiet(interpreter, start):
    exits_quietly(
        interpreter,
        f"""
        import shoal
        pool = shoal.Pool(2, start={start!r})
        assert pool.apply(abs, (-1,)) == 1
        """,
    )


def test_exit_before_the_pool_has_done_anything(interpreter, start):
    exits_quietly(interpreter, f"import shoal\npool = shoal.Pool(2, start={start!r})")


def test_exit_with_tasks_running_ends_them(interpreter, start):
    exits_quietly(
        interpreter,
        f"""
        import time, shoal
        pool = shoal.Pool(2, start={start!r})
        results = [pool.apply_async(time.sleep, (1000,)) for _ in range(5)]
        lazy = pool.imap(time.sleep, [1000] * 5)
        again = pool.map_async(time.sleep, [1000] * 5, callback=print)
        """,
    )


def test_exit_completes_what_an_executor_was_given(interpreter, start):
    exits_quietly(
        interpreter,
        f"""
        import time, shoal
        executor = shoal.Executor(2, start={start!r})
        def show(future):
            print(future.result(), flush=True)
        executor.submit(pow, 2, 5).add_done_callback(show)
        """,
        out="32\n",
    )


def test_exit_by_exception_shows_only_that(interpreter, start):
    finished = interpreter(
        f"""
        import shoal
        pool = shoal.Pool(2, start={start!r})
        pool.apply(abs, (-1,))
        raise SystemExit("the end")
        """
    )
    assert (finished.returncode, finished.err) == (1, "the end\n")


def test_exit_in_the_block_of_a_pool(interpreter, start):
    exits_quietly(
        interpreter,
        f"""
        import sys, time, shoal
        with shoal.Pool(2, start={start!r}) as pool:
            pool.apply_async(time.sleep, (1000,))
            sys.exit(3)
        """,
        code=3,
    )


def test_os_exit_leaves_no_process(interpreter, start):
    exits_quietly(
        interpreter,
        f"""
        import os, time, shoal
        pool = shoal.Pool(2, start={start!r})
        pool.apply(abs, (-1,))
        pool.apply_async(time.sleep, (1000,))
        os._exit(4)
        """,
        code=4,
    )


def test_killed_parent_leaves_no_process(interpreter, start, wait_until):
    process = interpreter.start(
        f"""
        import time, shoal
        pool = shoal.Pool(2, start={start!r})
        pool.apply(abs, (-1,))
        results = [pool.apply_async(time.sleep, (1000,)) for _ in range(2)]
        print("ready", flush=True)
        time.sleep(1000)
        """
    )
    assert process.stdout.readline() == "ready\n"
    assert len(session_of(process.pid)) >= 4
    process.kill()
    process.communicate()
    wait_until(lambda: session_of(process.pid) == [], "all processes to end")


def test_thread_waiting_at_exit_does_not_hold_it_up(interpreter, start):
    exits_quietly(
        interpreter,
        f"""
        import threading, time, shoal
        pool = shoal.Pool(2, start={start!r})
        result = pool.apply_async(time.sleep, (1000,))
        def wait():
            try:
                result.get()
            except shoal.PoolClosed:
                pass
        threading.Thread(target=wait, daemon=True).start()
        """,
    )


def test_pool_can_be_made_in_a_thread_and_outlive_it(interpreter, start):
    exits_quietly(
        interpreter,
        f"""
        import threading, time, shoal
        made = []
        thread = threading.Thread(target=lambda: made.append(shoal.Pool(2, start={start!r})))
        thread.start()
        thread.join()
        time.sleep(0.3)
        assert made[0].map(abs, [-1, -2]) == [1, 2]
        made[0].terminate()
        """,
    )


# ---- Ctrl-C --------------------------------------------------------------------------------------


WAITS = {
    "map": "pool.map(sleep, [1000] * 4, 1)",
    "apply": "pool.apply(sleep, (1000,))",
    "get": "pool.apply_async(sleep, (1000,)).get()",
    "wait": "pool.apply_async(sleep, (1000,)).wait()",
    "map_async": "pool.map_async(sleep, [1000] * 4).get()",
    "imap": "list(pool.imap(sleep, [1000] * 4))",
    "imap_unordered": "list(pool.imap_unordered(sleep, [1000] * 4))",
    "join": "pool.apply_async(sleep, (1000,)); pool.close(); pool.join()",
    "callback": "pool.apply_async(sleep, (1000,), callback=print).get()",
    "swallow": "pool.map(swallow, [0] * 4, 1)",
    "result": "executor.submit(sleep, 1000).result()",
    "as_completed": "list(concurrent.futures.as_completed([executor.submit(sleep, 1000)]))",
    "executor map": "list(executor.map(sleep, [1000] * 4))",
    "busy": "\n        while True: pool.map(abs, range(1000))",
    "endless": "\n        for _ in pool.imap(abs, itertools.count()): pass",
}


@pytest.mark.parametrize("what", WAITS)
def test_one_ctrl_c_ends_the_program_with_one_traceback(interpreter, start, what):
    process = interpreter.start(
        f"""
import concurrent.futures, itertools, sys, time
import shoal

def sleep(seconds):
    time.sleep(seconds)

def swallow(_):
    while True:
        try:
            time.sleep(1)
        except BaseException:
            pass

kind = {what!r}
if kind in ("result", "as_completed", "executor map"):
    executor = shoal.Executor(2, start={start!r})
    executor.submit(abs, 1).result()
else:
    pool = shoal.Pool(2, start={start!r})
    pool.map(abs, range(4), 1)
print("ready", flush=True)
try:
        {WAITS[what]}
except KeyboardInterrupt:
    if kind in ("result", "as_completed", "executor map"):
        executor.kill_workers()
    raise
"""
    )
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.2)  # into the wait
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=50)
    # One traceback; importlib's own may be chained to it, where Ctrl-C met it handling an error.
    chained = len(_CHAINED.findall(err))
    assert err.count("Traceback") == 1 + chained, err
    assert err.rstrip().endswith("KeyboardInterrupt"), err
    assert process.returncode in (1, 130, -signal.SIGINT)
    deadline = time.monotonic() + 20
    while session_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert session_of(process.pid) == []


def _press_ctrl_c(process):
    """As a user does: again, where importlib has dropped it. How often it has, and all of stderr.

    What a signal handler raises in the callback of a weak reference is printed and dropped by the
    interpreter, and importlib has such callbacks for each module that is imported.
    """
    lost = 0
    for _ in range(50):
        os.killpg(process.pid, signal.SIGINT)
        for _ in range(50):
            try:
                return lost, process.communicate(timeout=1)[1]
            except subprocess.TimeoutExpired as waited:
                err = (waited.stderr or b"").decode()
            if err.count("Exception ignored in: <function") > lost:
                assert err.count('File "<frozen importlib._bootstrap>"') > lost, err
                lost += 1
                break
        else:
            pytest.fail(f"a Ctrl-C was lost: {err}")
    pytest.fail(f"Ctrl-C was lost again and again: {err}")


@pytest.mark.parametrize("moment", range(12))
def test_ctrl_c_at_any_moment_leaves_nothing(interpreter, start, moment):
    """From the import to the last line: the delay decides what it hits."""
    process = interpreter.start(
        f"""
        import os
        print("ready", flush=True)
        import shoal
        for _ in range(1000):
            with shoal.Pool(2, start={start!r}) as pool:
                pool.map(abs, range(100))
        """
    )
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.03 * moment)
    lost, err = _press_ctrl_c(process)
    # One traceback; importlib's own may be chained to it, where Ctrl-C met it handling an error.
    chained = len(_CHAINED.findall(err))
    assert err.count("Traceback") == 1 + lost + chained, err
    assert "KeyboardInterrupt" in err
    deadline = time.monotonic() + 20
    while session_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert session_of(process.pid) == []


@pytest.mark.parametrize("hook", ["before", "after_in_parent"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGALRM])
def test_what_a_signal_handler_raises_during_a_fork_reaches_the_program(interpreter, hook, number):
    result = interpreter(
        f"""
        import ctypes, functools, os, signal

        class Late(Exception):
            pass

        def late(*_):
            raise Late

        signal.signal(signal.SIGALRM, late)
        # No Python function, so the signal is still to be looked at when shoal's hook is called:
        # hooks before a fork run from the last to the first, those after it from the first.
        come = functools.partial(ctypes.CDLL(None)["raise"], {int(number)})
        if {hook!r} == "after_in_parent":
            os.register_at_fork(after_in_parent=come)
        import shoal._pool._engine
        if {hook!r} == "before":
            os.register_at_fork(before=come)
        me = os.getpid()
        try:
            child = os.fork()
            for _ in range(1000):
                pass
            said = "nothing came" if os.getpid() == me else "the child"
        except (KeyboardInterrupt, Late) as error:
            said = f"{{os.getpid() == me}} {{type(error).__name__}}"
        os.write(1, said.encode() + b"\\n")
        if os.getpid() == me:
            os.wait()
        """
    )
    raised = "KeyboardInterrupt" if number == signal.SIGINT else "Late"
    assert sorted(result.check().split("\n")) == ["", f"True {raised}", "the child"], result.err
    assert result.err == ""


def test_pool_is_usable_after_ctrl_c(kind):
    with make_pool(kind) as pool:
        pool.apply(tasks.square, (1,))
        for wait in (
            lambda: pool.apply(tasks.sleep_for_ever),
            lambda: pool.map(time.sleep, [1000] * 4),
            lambda: list(pool.imap(time.sleep, [0.001, 1000])),
        ):
            main = threading.main_thread().ident
            threading.Timer(0.1, lambda: signal.pthread_kill(main, signal.SIGINT)).start()
            with pytest.raises(KeyboardInterrupt):
                wait()
    with make_pool(kind) as pool:
        threading.Timer(
            0.1, lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        ).start()
        with pytest.raises(KeyboardInterrupt):
            pool.map(time.sleep, [1000] * 4, 1)
        assert pool.map(tasks.square, range(5)) == [0, 1, 4, 9, 16]


def test_workers_ignore_ctrl_c_but_their_subprocesses_do_not(kind):
    with make_pool(kind, 1) as pool:
        pid = pool.apply(tasks.pid)
        os.kill(pid, signal.SIGINT)
        assert pool.apply(tasks.pid) == pid
        assert pool.apply(_sigint_in_subprocess) == -signal.SIGINT


def _sigint_in_subprocess():
    process = subprocess.Popen(["sleep", "1000"])
    process.send_signal(signal.SIGINT)
    return process.wait()
