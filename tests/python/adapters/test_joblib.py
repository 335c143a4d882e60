# SPDX-License-Identifier: Apache-2.0
"""The joblib backend, joblib's "loky" under shoal, loky's reusable executor, scikit-learn."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

joblib = pytest.importorskip("joblib")
pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:joblib.*")

HEAD = """
import multiprocessing, os, sys, time
import joblib
from joblib import Parallel, delayed, parallel_config
from shoal.adapters.joblib import ShoalBackend, register

register()

def square(value):
    return value * value

"""


@pytest.fixture
def program(interpreter):
    """Run a program whose body is under the guard; nothing may be said on stderr."""
    import textwrap

    def run(body: str, definitions: str = "", env: dict[str, str] | None = None) -> str:
        text = HEAD + textwrap.dedent(definitions) + '\nif __name__ == "__main__":\n'
        done = interpreter(text + textwrap.indent(textwrap.dedent(body), "    "), env=env)
        out = done.check()
        assert done.err == "", done.err
        return out

    return run


def test_a_call_gives_the_results_in_order(program) -> None:
    program("""
        with parallel_config(backend="shoal", n_jobs=2):
            results = Parallel()(delayed(square)(i) for i in range(1000))
            assert results == [i * i for i in range(1000)]
            assert Parallel()([]) == []
        call = Parallel(n_jobs=2, backend=ShoalBackend())
        assert call(delayed(pow)(i, 2) for i in [1, 2]) == [1, 4]
    """)


@pytest.mark.parametrize("batch", ["'auto'", "1", "7"])
@pytest.mark.parametrize("dispatch", ["'all'", "1", "'2*n_jobs'"])
def test_batches_and_dispatch_ahead(program, batch: str, dispatch: str) -> None:
    program(f"""
        call = Parallel(n_jobs=2, backend="shoal", batch_size={batch}, pre_dispatch={dispatch})
        assert call(delayed(square)(i) for i in range(50)) == [i * i for i in range(50)]
    """)


def test_short_tasks_are_batched(program) -> None:
    program("""
        backend = ShoalBackend()
        Parallel(n_jobs=2, backend=backend)(delayed(square)(i) for i in range(5000))
        assert backend._effective_batch_size == 1  # reset after the call
        sizes = []
        backend.batch_completed_ = backend.batch_completed
        def completed(size, duration):
            sizes.append(size)
            backend.batch_completed_(size, duration)
        backend.batch_completed = completed
        Parallel(n_jobs=2, backend=backend)(delayed(square)(i) for i in range(5000))
        assert sum(sizes) == 5000 and max(sizes) > 10
    """)


@pytest.mark.parametrize("kind", ["generator", "generator_unordered"])
def test_results_as_they_come(program, kind: str) -> None:
    program(
        f"""
        results = Parallel(n_jobs=2, backend="shoal", return_as={kind!r})(
            delayed(square)(i) for i in range(20))
        assert next(results) in [i * i for i in range(20)]
        assert len(list(results)) == 19
        # A generator that is given up stops its own tasks, and the next call works.
        results = Parallel(n_jobs=2, backend="shoal", return_as={kind!r}, batch_size=1)(
            delayed(time.sleep)(600 if i > 2 else 0) for i in range(20))
        next(results)
        del results
        assert Parallel(n_jobs=2, backend="shoal")(delayed(square)(i) for i in [3]) == [9]
    """,
        env={"PYTHONWARNINGS": "ignore"},
    )  # joblib's, about the tasks that are withdrawn


def test_an_unordered_generator_gives_the_first_first(program) -> None:
    program(
        """
        results = Parallel(2, "shoal", return_as="generator_unordered", batch_size=1)(
            delayed(late)(i) for i in range(2))
        assert list(results) == [1, 0]
    """,
        """
        def late(number):
            if number == 0:
                time.sleep(1)
            return number
    """,
    )


def test_what_a_task_raises_ends_the_call_with_the_workers_traceback(program) -> None:
    out = program(
        """
        import traceback
        begun = time.monotonic()
        try:
            Parallel(n_jobs=2, backend="shoal", batch_size=1)(
                delayed(fail)(i) for i in [1, 0] + [2] * 100)
        except ZeroDivisionError:
            traceback.print_exc(file=sys.stdout)
        assert time.monotonic() - begun < 60  # the others were to sleep for ten minutes each
        assert Parallel(n_jobs=2, backend="shoal")(delayed(square)(i) for i in [3]) == [9]
    """,
        """
        def fail(number):
            if number == 2:
                time.sleep(600)
            return 1 / number
    """,
    )
    assert "return 1 / number" in out


def test_a_timeout_ends_the_call(program) -> None:
    program("""
        try:
            Parallel(n_jobs=2, backend="shoal", timeout=0.2)(
                delayed(time.sleep)(600) for _ in range(4))
        except multiprocessing.TimeoutError:
            print("timeout")
        assert Parallel(2, "shoal", timeout=60)(delayed(square)(i) for i in [3]) == [9]
    """)


def test_a_killed_worker_ends_its_call_and_not_the_next(program) -> None:
    program("""
        from concurrent.futures.process import BrokenProcessPool
        from joblib.externals.loky.process_executor import TerminatedWorkerError
        import shoal

        for kind in (BrokenProcessPool, TerminatedWorkerError, shoal.WorkerDied):
            try:
                Parallel(n_jobs=2, backend="shoal")(delayed(os._exit)(3) for _ in range(2))
            except kind as error:
                assert error.exitcode == 3, error
                assert "while it ran posix._exit(...)" in str(error), error
                assert error.task == "posix._exit", error.task
            else:
                raise AssertionError
            assert Parallel(2, "shoal")(delayed(square)(i) for i in [3, 4]) == [9, 16]
    """)


def test_calls_in_workers(program) -> None:
    out = program(
        """
        with parallel_config(backend="shoal", n_jobs=2):
            print(Parallel()(delayed(inner)(None) for _ in range(1)))
            print(Parallel()(delayed(inner)("shoal") for _ in range(1)))
            print(Parallel()(delayed(inner)("sequential") for _ in range(1)))
    """,
        """
        def where(_):
            time.sleep(0.01)
            return os.getpid()

        def inner(backend):
            pids = set(Parallel(n_jobs=2, backend=backend, batch_size=1)(
                delayed(where)(i) for i in range(30)))
            active = joblib.parallel.get_active_backend()[0]
            return type(active).__name__, os.getpid() in pids, len(pids)
    """,
    )
    assert out.splitlines() == [
        "[('ThreadingBackend', True, 1)]",
        "[('ThreadingBackend', False, 2)]",
        "[('ThreadingBackend', True, 1)]",
    ]


def test_workers_are_kept_for_the_next_call_that_asks_for_the_same(program) -> None:
    program(
        """
        def pids(n_jobs, **options):
            with parallel_config(backend="shoal", n_jobs=n_jobs, **options):
                return set(Parallel(batch_size=1)(delayed(where)(i) for i in range(40)))

        first = pids(2)
        assert len(first) == 2 and pids(2) == first
        other = pids(3)
        assert len(other) == 3 and not other & first
        assert not pids(3, idle_worker_timeout=1e-6) & other  # idle for longer
        with Parallel(n_jobs=2, backend="shoal") as call:
            used = [pid for _ in range(3) for pid in call(delayed(where)(i) for i in range(9))]
            assert len(set(used)) <= 2
    """,
        """
        def where(_):
            time.sleep(0.005)
            return os.getpid()
    """,
    )


def test_an_initializer_runs_in_each_worker(program) -> None:
    program(
        """
        with parallel_config(backend="shoal", n_jobs=2, initializer=begin, initargs=(5,)):
            assert Parallel()(delayed(look)(i) for i in range(4)) == [5] * 4
    """,
        """
        def begin(value):
            global given
            given = value

        def look(_):
            return given
    """,
    )


def test_wrong_options_are_refused(program) -> None:
    program("""
        for options, kind in [(dict(timeout=3), ValueError), (dict(colour=3), TypeError)]:
            try:
                with parallel_config(backend="shoal", n_jobs=2, **options):
                    Parallel()(delayed(square)(i) for i in range(2))
            except kind:
                continue
            raise AssertionError(options)
        try:
            Parallel(n_jobs=0, backend="shoal")(delayed(square)(i) for i in range(2))
        except ValueError as error:
            assert "n_jobs == 0" in str(error)
    """)


def test_the_number_of_workers(program) -> None:
    program("""
        backend = ShoalBackend(nesting_level=0)
        cpus = joblib.cpu_count()
        asked = {None: 1, 1: 1, 3: 3, -1: cpus, -cpus - 5: 1}
        assert {n: backend.effective_n_jobs(n) for n in asked} == asked
        with parallel_config(backend="shoal", n_jobs=-1):
            assert joblib.effective_n_jobs(-1) == cpus
    """)


def test_threads_of_libraries_are_limited(program) -> None:
    pytest.importorskip("threadpoolctl")
    program(
        """
        import numpy  # before the workers are forked
        for limit in (1, 3):
            with parallel_config(backend="shoal", n_jobs=2, inner_max_num_threads=limit):
                for threads, variable in Parallel()(delayed(look)(i) for i in range(2)):
                    assert variable == str(limit) and set(threads) <= {limit}, threads
    """,
        """
        def look(_):
            import numpy, threadpoolctl
            threads = [one["num_threads"] for one in threadpoolctl.threadpool_info()]
            return threads, os.environ["OMP_NUM_THREADS"]
    """,
    )


def test_lambdas_and_closures_travel(program) -> None:
    program("""
        number = 5
        assert Parallel(2, "shoal")(delayed(lambda x: x + number)(i) for i in [1, 2]) == [6, 7]
    """)


def test_what_cannot_be_sent_is_a_pickling_error(program) -> None:
    program("""
        import pickle, threading
        try:
            Parallel(2, "shoal")(delayed(square)(threading.Lock()) for _ in range(3))
        except pickle.PicklingError as error:
            assert "the task to send" in str(error) and "lock" in str(error.__cause__)
        assert Parallel(2, "shoal")(delayed(square)(i) for i in [3]) == [9]
    """)


def test_an_inner_function_of_a_module_sees_its_globals_as_they_are_now(program) -> None:
    program("""
        open("other.py", "w").write("state = 1\\ndef make(): return lambda: state\\n")
        import other

        for other.state in (1, 2, 3):
            results = Parallel(2, "shoal")(delayed(other.make())() for _ in range(2))
            assert results == [other.state] * 2
    """)


def test_a_short_call_does_not_wait_for_joblibs_clock(program) -> None:
    """joblib looks for results every 10 ms; a call of shoal's is told."""
    program("""
        naps = []
        nap, joblib.parallel.time.sleep = time.sleep, naps.append
        for _ in range(20):
            Parallel(2, "shoal")(delayed(square)(i) for i in range(4))
        assert len(naps) < 20, naps
    """)


def test_ctrl_c_ends_the_call_once_and_the_program_goes_on(interpreter) -> None:
    process = interpreter.start(
        HEAD
        + """
def slow(_):
    os.write(1, b"begun\\n")  # at once: lines of two workers do not mix
    time.sleep(600)

if __name__ == "__main__":
    try:
        Parallel(n_jobs=2, backend="shoal", batch_size=1)(delayed(slow)(i) for i in range(9))
    except KeyboardInterrupt:
        print(Parallel(2, "shoal")(delayed(square)(i) for i in [3]))
"""
    )
    import signal

    assert process.stdout.readline() == "begun\n"
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and err == "" and out.endswith("[9]\n"), (out, err)


# ---- Arrays --------------------------------------------------------------------------------------

ARRAYS = """
    import numpy

    def kept_open():
        found = []
        for name in os.listdir("/proc/self/fd"):
            try:
                found.append(os.readlink("/proc/self/fd/" + name))
            except FileNotFoundError:
                pass
        return [target for target in found if "shoal-array" in target]

    def change(array, value=None):
        shape = array.shape, str(array.dtype), array.flags.f_contiguous
        array.flat[0] += 1
        return float(array.flat[0]), type(array).__name__, array.flags.writeable, shape
"""


def test_large_arrays_are_the_tasks_own_as_small_ones_are(program) -> None:
    pytest.importorskip("numpy")
    program(
        """
        for size in (10, 300_000):
            for array in (numpy.ones(size), numpy.ones((size, 2), "f4", order="F"),
                          numpy.ones((2, size))[:, ::2]):
                # Tasks that joblib puts into one batch are pickled together, and share the array.
                call = Parallel(2, "shoal", batch_size=1)
                results = call(delayed(change)(array, value=array) for _ in range(6))
                layout = array.shape, str(array.dtype), array.flags.f_contiguous
                assert results == [(2.0, "ndarray", True, layout)] * 6, results
                assert array.flat[0] == 1
        while kept_open():  # the last batch's end comes a moment after its results
            time.sleep(0.01)
    """,
        ARRAYS,
    )


def test_many_tasks_share_one_copy_of_an_array(program) -> None:
    pytest.importorskip("numpy")
    program(
        """
        array = numpy.ones(1_000_000)
        places = Parallel(2, "shoal", batch_size=1)(delayed(inode)(array) for _ in range(10))
        assert len(set(places)) == 1, places
        array[0] = 7  # the next call sees what is in it then
        assert Parallel(2, "shoal")(delayed(change)(array) for _ in range(2))[0][0] == 8
    """,
        ARRAYS
        + """
    def inode(array):
        at = array.__array_interface__["data"][0]
        for line in open("/proc/self/maps"):
            low, high = (int(part, 16) for part in line.split()[0].split("-"))
            if low <= at < high:
                return line.split()[4]
""",
    )


def test_shared_writing_is_asked_for(program) -> None:
    pytest.importorskip("numpy")
    program(
        """
        array = numpy.zeros(300_000)
        call = Parallel(2, "shoal", mmap_mode="r+", batch_size=1, pre_dispatch="all")
        assert sorted(r[0] for r in call(delayed(change)(array) for _ in range(4)))[-1] > 1
        assert array[0] == 0
        call = Parallel(2, "shoal", max_nbytes=None, mmap_mode="r+")
        assert [r[0] for r in call(delayed(change)(array) for _ in range(4))] == [1] * 4
        call = Parallel(2, "shoal", max_nbytes="1K", mmap_mode="r+")
        call(delayed(change)(numpy.zeros(1000)) for _ in range(4))
    """,
        ARRAYS,
    )


def test_arrays_that_map_a_users_file_stay_so(program) -> None:
    pytest.importorskip("numpy")
    program(
        """
        mapped = numpy.memmap("file", "f8", "w+", shape=100)
        Parallel(2, "shoal")(delayed(put)(mapped[10:20], i) for i in range(10))
        assert list(mapped[10:20]) == list(range(10)) and mapped[0] == 0
    """,
        """
        import numpy

        def put(array, number):
            array[number] = number
    """,
    )


# ---- Under install() and `shoal run` -------------------------------------------------------------


def shoal_run(tmp_path, text: str, **env: str) -> str:
    path = tmp_path / "program.py"
    path.write_text(text)
    command = [sys.executable, "-m", "shoal", "run", str(path)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **env}, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", done.stderr
    return done.stdout


LOKY = """
import joblib
from joblib import Parallel, delayed
from joblib.externals import loky

if __name__ == "__main__":
    for backend in (None, "loky"):
        call = Parallel(n_jobs=2, backend=backend)
        print(type(call._backend).__name__, call(delayed(abs)(-i) for i in range(3)))
    executor = loky.get_reusable_executor(max_workers=2)
    print(type(executor).__module__, executor.submit(pow, 2, 5).result())
    executor.shutdown()
"""


def test_under_shoal_run_joblibs_default_is_shoal(tmp_path) -> None:
    out = shoal_run(tmp_path, LOKY)
    assert out.splitlines() == [
        "ShoalLokyBackend [0, 1, 2]",
        "ShoalLokyBackend [0, 1, 2]",
        "shoal.adapters._loky 32",
    ]


def test_a_variable_leaves_joblib_alone(tmp_path) -> None:
    out = shoal_run(tmp_path, LOKY, SHOAL_JOBLIB="loky")
    assert out.splitlines() == [
        "LokyBackend [0, 1, 2]",
        "LokyBackend [0, 1, 2]",
        "joblib.externals.loky.reusable_executor 32",
    ]


def test_uninstall_gives_loky_back(program) -> None:
    program("""
        import shoal
        shoal.install()
        assert isinstance(Parallel(2)._backend, ShoalBackend)
        shoal.uninstall()
        assert type(Parallel(2)._backend) is joblib.parallel.LokyBackend
        assert type(Parallel(2, "shoal")._backend) is ShoalBackend
    """)


def test_threads_of_joblib_stay_threads(program) -> None:
    program("""
        import shoal
        shoal.install()
        with parallel_config(backend="threading", n_jobs=2):
            assert set(Parallel()(delayed(os.getpid)() for _ in range(9))) == {os.getpid()}
        call = Parallel(n_jobs=2, backend="multiprocessing")
        assert call(delayed(square)(i) for i in range(3)) == [0, 1, 4]
    """)


def test_the_reusable_executor_is_given_again_until_something_else_is_asked_for(program) -> None:
    program(
        """
        import shoal
        shoal.install()
        from joblib.externals.loky import get_reusable_executor

        first = get_reusable_executor(max_workers=2)
        assert get_reusable_executor(max_workers=2) is first and first._max_workers == 2
        assert get_reusable_executor(reuse=True) is first
        assert list(first.map(square, range(4))) == [0, 1, 4, 9]
        other = get_reusable_executor(max_workers=1, initializer=begin, env={"SHOAL_TEST": "7"})
        assert other is not first and other.executor_id > first.executor_id
        assert other.submit(look).result() == ("begun", "7")
        try:
            first.submit(square, 1)
        except RuntimeError:
            pass
        try:
            other.submit(os._exit, 1).result()
        except shoal.WorkerDied:
            pass
        assert other.submit(look).result() == ("begun", "7")
        running = other.submit(time.sleep, 600)
        other.shutdown(kill_workers=True)
        assert running.done()
        assert get_reusable_executor(max_workers=1).submit(square, 3).result() == 9
        try:
            get_reusable_executor(max_workers=0)
        except ValueError:
            print("refused")
    """,
        """
        def begin():
            global state
            state = "begun"

        def look():
            return state, os.environ["SHOAL_TEST"]
    """,
    )


@pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="needs scikit-learn")
def test_scikit_learn_gives_the_same_results(tmp_path) -> None:
    text = """
import json
import numpy
from sklearn.datasets import make_classification
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.multiclass import OneVsRestClassifier

import joblib

if __name__ == "__main__":
    X, y = make_classification(4000, 40, n_informative=8, n_classes=3, random_state=0)
    found = []
    for n_jobs in (1, 2, -1):
        model, grid = LogisticRegression(max_iter=50), {"C": [0.1, 1.0]}
        search = GridSearchCV(model, grid, n_jobs=n_jobs, cv=3)
        trees = ExtraTreesClassifier(8, random_state=0)
        with joblib.parallel_config(n_jobs=n_jobs):
            scores = cross_val_score(trees, X, y, cv=3)
        rest = OneVsRestClassifier(LogisticRegression(max_iter=50), n_jobs=n_jobs).fit(X, y)
        found.append([search.fit(X, y).cv_results_["mean_test_score"].tolist(), scores.tolist(),
                      rest.decision_function(X[:5]).tolist()])
    assert found[0] == found[1] == found[2], found
    assert all(number == number for number in found[0][0])
    print(json.dumps(found[1]), type(joblib.Parallel(n_jobs=2)._backend).__name__)
"""
    quiet = {"PYTHONWARNINGS": "ignore"}
    mine, stock = (
        shoal_run(tmp_path, text, **quiet, **env) for env in ({}, {"SHOAL_JOBLIB": "loky"})
    )
    assert mine.rpartition(" ")[0] == stock.rpartition(" ")[0]
    assert mine.endswith("ShoalLokyBackend\n") and stock.endswith("LokyBackend\n")


IDLE = """
        def children():
            found = []
            for pid in filter(str.isdecimal, os.listdir("/proc")):
                try:
                    text = open(f"/proc/{pid}/stat").read()
                except OSError:
                    continue
                if int(text.rpartition(")")[2].split()[1]) == os.getpid():
                    found.append(int(pid))
            return found

        def wait_for_their_end():
            end = time.monotonic() + 50
            while children():
                assert time.monotonic() < end
                time.sleep(0.01)
    """


def test_idle_workers_end_without_a_next_call(program) -> None:
    program(
        """
        for backend in ("shoal", ShoalBackend(idle_worker_timeout=0.1)):
            options = {"idle_worker_timeout": 0.1} if backend == "shoal" else {}
            with parallel_config(backend=backend, n_jobs=2, **options):
                for _ in range(2):
                    assert Parallel()(delayed(square)(i) for i in range(3)) == [0, 1, 4]
                    wait_for_their_end()
        with parallel_config(backend="shoal", n_jobs=2):  # 300 seconds
            Parallel()(delayed(square)(i) for i in range(3))
            assert children()
    """,
        IDLE,
    )


def test_idle_workers_of_the_reusable_executor_end_and_it_goes_on(program) -> None:
    program(
        """
        import shoal
        shoal.install()
        from joblib.externals.loky import get_reusable_executor

        executor = get_reusable_executor(max_workers=2, timeout=0.1)
        for n in range(3):
            assert executor.submit(square, n).result() == n * n and children()
            wait_for_their_end()
        assert list(executor.map(square, range(4))) == [0, 1, 4, 9]
        wait_for_their_end()
        assert get_reusable_executor(max_workers=2, timeout=0.1) is executor
        assert get_reusable_executor(max_workers=1, timeout=0.1) is not executor
        try:
            executor.submit(square, 1)
        except RuntimeError:
            print("shut down")
    """,
        IDLE,
    )


def test_a_long_task_is_not_idle_time(program) -> None:
    program("""
        import shoal
        shoal.install()
        from joblib.externals.loky import get_reusable_executor

        executor = get_reusable_executor(max_workers=1, timeout=0.05)
        assert executor.submit(time.sleep, 0.5).result() is None
        with parallel_config(backend="shoal", n_jobs=2, idle_worker_timeout=0.05):
            assert Parallel()(delayed(time.sleep)(0.3) for _ in range(2)) == [None, None]
    """)


def test_folders_that_were_deleted_do_not_matter(program) -> None:
    program("""
        import tempfile
        folder, temporary = tempfile.mkdtemp(), tempfile.mkdtemp()
        os.environ["TMPDIR"] = os.environ["JOBLIB_TEMP_FOLDER"] = temporary
        tempfile.tempdir = None
        os.chdir(folder)
        import shoal
        shoal.install()
        from joblib.externals.loky import get_reusable_executor

        for gone in (False, True):
            if gone:
                os.rmdir(folder)
                os.rmdir(temporary)
            for n_jobs in (2, 3):  # other workers than before
                with parallel_config(backend="shoal", n_jobs=n_jobs):
                    assert Parallel()(delayed(square)(i) for i in range(3)) == [0, 1, 4]
                executor = get_reusable_executor(max_workers=n_jobs)
                assert executor.submit(square, 3).result() == 9
    """)


def test_joblib_works_where_python_has_no_multiprocessing(interpreter, tmp_path):
    """A Python that was built without it: joblib runs everything in this process then."""
    (tmp_path / "_multiprocessing.py").write_text("raise ImportError('not built')")
    program = """
        import joblib
        print(joblib.Parallel(n_jobs=1)(joblib.delayed(abs)(-x) for x in range(3)))
    """
    environment = {"SHOAL_RUN": "1", "PYTHONPATH": str(tmp_path)}
    assert interpreter(program, env=environment).check() == "[0, 1, 2]\n"
