# SPDX-License-Identifier: Apache-2.0
"""What users of `multiprocessing` suffered from for years, in a few lines each, on shoal.

Queues, pipes, pools and arrays; the letters are the rows of the list of pains. Each program would
hang, fail or lose something with the standard library, as its docstring says.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def test_a4_a_process_is_joined_before_its_large_object_is_got(interpreter: Any) -> None:
    """A4: `join` waited for the feeder thread, which waited for a reader of the 64 KiB pipe."""
    program = """
        import shoal.multiprocessing as mp

        def work(queue):
            queue.put("x" * 10_000_000)

        if __name__ == "__main__":
            queue = mp.Queue()
            process = mp.Process(target=work, args=(queue,))
            process.start()
            process.join()
            print(len(queue.get()))
    """
    assert interpreter(program).check() == "10000000\n"


def test_a4_a_process_is_joined_before_its_pipe_is_read(interpreter: Any) -> None:
    """A4: the same with a pipe, whose `send` waited for a reader."""
    program = """
        import shoal.multiprocessing as mp

        def work(connection):
            for number in range(20):
                connection.send(bytes([number]) * 500_000)

        if __name__ == "__main__":
            reader, writer = mp.Pipe(False)
            process = mp.Process(target=work, args=(writer,))
            process.start()
            process.join()
            print([reader.recv()[0] for _ in range(20)] == list(range(20)))
    """
    assert interpreter(program).check() == "True\n"


def test_a7_workers_that_are_replaced_finish_the_work(interpreter: Any) -> None:
    """A7: `max_tasks_per_child` stopped after that many tasks."""
    program = """
        import shoal; shoal.install()
        from concurrent.futures import ProcessPoolExecutor
        import multiprocessing, os, sys

        if __name__ == "__main__":
            options = {"max_tasks_per_child": 2} if sys.version_info >= (3, 11) else {}
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(2, mp_context=context, **options) as executor:
                print(sum(executor.map(abs, range(-10, 0))))
    """
    assert interpreter(program).check() == "55\n"


def test_a8_an_exception_that_cannot_be_rebuilt_fails_its_task_only(interpreter: Any) -> None:
    """A8: an exception with other arguments than its `args` hung the pool, for good."""
    program = """
        import shoal.multiprocessing as mp

        class Odd(Exception):
            def __init__(self, code, text):
                super().__init__(f"{text} ({code})")

        def fail(x):
            raise Odd(x, "no")

        if __name__ == "__main__":
            with mp.Pool(2) as pool:
                try:
                    pool.map(fail, [7])
                except Exception as error:
                    print("no (7)" in str(error))
                print(pool.map(abs, [-1, 2]))
    """
    assert interpreter(program).check() == "True\n[1, 2]\n"


@pytest.mark.parametrize("make", ["Queue", "SimpleQueue", "Pipe"])
def test_a8_what_cannot_be_rebuilt_does_not_stop_the_others(interpreter: Any, make: str) -> None:
    """A8: where it was got the error came, and what followed must still arrive."""
    program = f"""
        import shoal.multiprocessing as mp

        class Odd(Exception):
            def __init__(self, code, text):
                super().__init__(text)

        made = mp.{make}()
        put, get = (made[0].send, made[1].recv) if "{make}" == "Pipe" else (made.put, made.get)
        for obj in (Odd(1, "a"), "next"):
            put(obj)
        try:
            get()
        except TypeError as error:
            print("missing" in str(error), get())
    """
    assert interpreter(program).check() == "True next\n"


def test_a10_a_failing_initializer_is_one_error(interpreter: Any) -> None:
    """A10: the pool started processes for ever, 150 in two seconds."""
    program = """
        import shoal.multiprocessing as mp

        def start():
            raise ValueError("no licence")

        if __name__ == "__main__":
            try:
                with mp.Pool(2, initializer=start) as pool:
                    pool.map(abs, [-1])
            except Exception as error:
                print(type(error).__name__, "no licence" in str(error))
    """
    assert "True" in interpreter(program).check()


@pytest.mark.parametrize("wait", ["queue.get", "connection.recv", "lambda: connection.poll(None)"])
def test_d8_waiting_costs_no_processor_time(interpreter: Any, wait: str) -> None:
    """D8: queues of shared memory burnt a processor while nothing came."""
    program = f"""
        import threading, time
        import shoal.multiprocessing as mp

        queue, (connection, other) = mp.Queue(), mp.Pipe()
        thread = threading.Thread(target={wait})
        thread.start()
        time.sleep(0.2)
        before = time.process_time()
        time.sleep(1)
        print(time.process_time() - before < 0.1)
        queue.put(1)
        other.send(1)
        thread.join()
    """
    assert interpreter(program).check() == "True\n"


def test_d11_counting_in_several_processes_loses_nothing(interpreter: Any) -> None:
    """D11: `value.value += 1` loses counts, and a lock around it is slow."""
    program = """
        import shoal
        import shoal.multiprocessing as mp

        def count(counter):
            for _ in range(20_000):
                counter.add(1)

        if __name__ == "__main__":
            counter = shoal.Atomic(0)
            processes = [mp.Process(target=count, args=(counter,)) for _ in range(3)]
            for process in processes:
                process.start()
            for process in processes:
                process.join()
            print(counter.load())
    """
    assert interpreter(program).check() == "60000\n"


@pytest.mark.parametrize("make", ["Queue", "Pipe"])
def test_e2_functions_without_a_name_travel(interpreter: Any, make: str) -> None:
    """E2: lambdas, closures and local classes could not be pickled."""
    program = f"""
        import shoal.multiprocessing as mp

        def main():
            base = 40

            class Local:
                def answer(self, x):
                    return base + x

            made = mp.{make}()
            put, get = (made[0].send, made[1].recv) if "{make}" == "Pipe" else (made.put, made.get)
            put(lambda x: Local().answer(x))
            put(Local())
            print(get()(2), get().answer(2))

        main()
    """
    assert interpreter(program).check() == "42 42\n"


def test_e3_functions_of_a_main_module_without_a_file(interpreter: Any) -> None:
    """E3: in notebooks and shells, "Can't get attribute ... on __main__", and a hang."""
    program = """
        import subprocess, sys, textwrap

        typed = textwrap.dedent('''
            import shoal.multiprocessing as mp
            def square(x): return x * x

            pool = mp.get_context("spawn").Pool(2)
            print(pool.map(square, range(4)))
            pool.close(); pool.join()
        ''')
        print(subprocess.run([sys.executable, "-"], input=typed, text=True, check=True,
                             capture_output=True).stdout, end="")
    """
    assert interpreter(program).check() == "[0, 1, 4, 9]\n"


def test_e4_a_program_without_a_main_guard(interpreter: Any) -> None:
    """E4: RuntimeError, or processes without end, where a fresh interpreter ran the program."""
    program = """
        import shoal.multiprocessing as mp

        def square(x):
            return x * x

        with mp.get_context("spawn").Pool(2) as pool:
            print(pool.map(square, range(4)))
    """
    assert interpreter(program).check() == "[0, 1, 4, 9]\n"


def test_e5_a_pool_inside_a_task_of_a_pool(interpreter: Any) -> None:
    """E5: "daemonic processes are not allowed to have children"."""
    program = """
        import shoal

        def inner(x):
            with shoal.Pool(2) as pool:
                return sum(pool.map(abs, range(-x, 0)))

        with shoal.Pool(2) as pool:
            print(pool.map(inner, [1, 2, 3]))
    """
    assert interpreter(program).check() == "[1, 3, 6]\n"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_e6_a_temporary_folder_with_a_long_name(
    interpreter: Any, tmp_path: Path, method: str
) -> None:
    """E6: "AF_UNIX path too long", when TMPDIR was."""
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    program = f"""
        import shoal.multiprocessing as mp

        def answer(queue, connection):
            queue.put(connection.recv() + 1)

        if __name__ == "__main__":
            context = mp.get_context("{method}")
            queue, (reader, writer) = context.Queue(), context.Pipe(False)
            process = context.Process(target=answer, args=(queue, reader))
            process.start()
            writer.send(41)
            print(queue.get())
            process.join()
    """
    assert interpreter(program, env={"TMPDIR": str(folder)}).check() == "42\n"


@pytest.mark.parametrize("kind", ["Queue", "JoinableQueue"])
def test_h5_sizes_are_exact_at_once(interpreter: Any, kind: str) -> None:
    """H5: `qsize` raised on some platforms, and `empty` lied until the feeder thread had run."""
    program = """
        import sys
        import shoal.multiprocessing as mp

        def fill(queue):
            for number in range(100):
                queue.put(number)

        if __name__ == "__main__":
            queue = getattr(mp, sys.argv[1])(150)
            for number in range(50):
                queue.put(number)
                assert not queue.empty() and queue.qsize() == number + 1
            process = mp.Process(target=fill, args=(queue,))
            process.start()
            process.join()
            print(queue.qsize(), queue.full(), queue.empty())
            while not queue.empty():
                queue.get(block=False)
            print(queue.qsize(), queue.full(), queue.empty())
    """
    assert interpreter(program, kind).check() == "150 True False\n0 False True\n"
