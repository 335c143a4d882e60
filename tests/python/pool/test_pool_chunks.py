# SPDX-License-Identifier: Apache-2.0
"""What a chunk of a map is: in the drop-in one task, as in the standard library; in shoal's own
pools what is pickled together, and nothing else.

The programs run under the standard library and under the drop-in, and must print the same.
"""

from __future__ import annotations

import pytest
import shoal

START_METHODS = ["fork", "spawn", "forkserver"]

FUNCTIONS = """
    import concurrent.futures, itertools, multiprocessing, os, sys, tempfile, threading

    def double_in_place(numbers):
        numbers[0] *= 2
        return numbers

    def add_in_place(numbers, step):
        numbers[0] += step
        return numbers

    def fail_at_four(x):
        open(os.path.join(os.environ["FOLDER"], str(x)), "w").close()
        if x == 4:
            raise ValueError(x)
        return x

    def pid(_):
        return os.getpid()

    def lambda_at_two(x):
        return (lambda: x) if x == 2 else x

    def outcomes(results):
        found = []
        while True:
            try:
                found.append(next(results))
            except StopIteration:
                return found
            except Exception as error:
                found.append(type(error).__name__)
"""


@pytest.fixture(params=START_METHODS)
def same(request, interpreter, tmp_path):
    """Runs a program under both, and gives what it printed."""

    def run(body: str) -> str:
        lines = [f"    {line}" for line in body.splitlines()]
        source = FUNCTIONS + "\n    if __name__ == '__main__':\n" + "\n".join(lines)
        printed = []
        for name in ("0", "1"):
            folder = tmp_path / name
            folder.mkdir()
            env = {"FOLDER": str(folder), **({"SHOAL_RUN": "1"} if name == "1" else {})}
            printed.append(interpreter(source, request.param, env=env).check())
        assert printed[1] == printed[0]
        return printed[0]

    return run


def test_results_of_a_chunk_are_pickled_together_at_its_end(same) -> None:
    printed = same("""
        context = multiprocessing.get_context(sys.argv[1])
        with context.Pool(2) as pool:
            a = [1]
            print(pool.map(double_in_place, [a, a, a], chunksize=3))
            print(pool.map(double_in_place, [a, a, a], chunksize=2))
            print(pool.map(double_in_place, [a, a, a], chunksize=1))
            print(pool.map_async(double_in_place, (a for _ in range(7)), chunksize=3).get())
            print(pool.starmap(add_in_place, [(a, 1), (a, 2), (a, 3)], chunksize=3))
            print(pool.starmap_async(add_in_place, [(a, 1), (a, 2), (a, 3)], chunksize=3).get())
            print(list(pool.imap(double_in_place, [a] * 7, chunksize=3)))
            print(list(pool.imap(double_in_place, (a for _ in range(7)), chunksize=3)))
            print(sorted(pool.imap_unordered(double_in_place, [a] * 7, chunksize=3)))
            same = pool.map(double_in_place, [a, a, a], chunksize=3)
            print(same[0] is same[1] is same[2])
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as executor:
            print(list(executor.map(double_in_place, [a, a, a], chunksize=3)))
            print(list(executor.map(add_in_place, [a, a, a], [1, 2, 3], chunksize=2)))
            print(list(executor.map(double_in_place, [a, a, a])))
    """)
    assert printed.startswith("[[8], [8], [8]]\n[[4], [4], [2]]\n[[2], [2], [2]]\n")


def test_chunks_that_nobody_asked_for_give_the_same_results_for_mutable_items(same) -> None:
    same("""
        with multiprocessing.get_context(sys.argv[1]).Pool(1) as pool:
            a = [1]
            print(pool.map(double_in_place, [a] * 16))
            print(pool.map_async(double_in_place, [a] * 10).get())
            print(pool.starmap(add_in_place, [(a, i) for i in range(9)]))
    """)


def test_an_error_skips_the_rest_of_its_chunk_and_is_its_only_outcome(same) -> None:
    printed = same("""
        with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
            print(outcomes(iter(pool.imap(fail_at_four, range(12), chunksize=3))))
            print(outcomes(iter(pool.imap(fail_at_four, range(12), chunksize=1))))
            for call in (pool.map, lambda *a: pool.map_async(*a).get()):
                try:
                    print(call(fail_at_four, range(12, 0, -1), 6))
                except ValueError as error:
                    print(repr(error))
            pool.close()
            pool.join()
            print(sorted(map(int, os.listdir(os.environ["FOLDER"]))))
    """)
    assert printed.startswith("[0, 1, 2, 'ValueError']\n[0, 1, 2, 3, 'ValueError', 5, 6, 7, 8,")


def test_an_error_skips_the_rest_of_its_chunk_in_an_executor(same) -> None:
    same("""
        context = multiprocessing.get_context(sys.argv[1])
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor:
            print(outcomes(executor.map(fail_at_four, range(3, 6), chunksize=3)))
            print(outcomes(executor.map(fail_at_four, [0, 1, 4, 2], chunksize=2)))
        print(sorted(map(int, os.listdir(os.environ["FOLDER"]))))
    """)


def test_a_chunk_is_run_by_one_process_and_is_one_task_for_maxtasksperchild(same) -> None:
    same("""
        context = multiprocessing.get_context(sys.argv[1])
        groups = lambda pids: [len(list(group)) for _, group in itertools.groupby(pids)]
        with context.Pool(2) as pool:
            pids = pool.map(pid, range(24), chunksize=6)
            print([len(set(pids[i : i + 6])) for i in range(0, 24, 6)])
        with context.Pool(1, maxtasksperchild=2) as pool:
            print(groups(pool.map(pid, range(24), chunksize=4)))
            print(groups(pool.imap(pid, range(8), chunksize=2)))
        with context.Pool(1, maxtasksperchild=1) as pool:
            print(groups(pool.map(pid, range(8))))
    """)


def test_what_cannot_be_pickled_is_the_whole_chunks_error(same) -> None:
    printed = same("""
        with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
            print(outcomes(iter(pool.imap(lambda_at_two, range(4), chunksize=2))))
            print(outcomes(iter(pool.imap(str, [0, 1], chunksize=2))))
    """)
    assert printed == "[0, 1, 'MaybeEncodingError']\n['0', '1']\n"


def test_an_input_that_fails_within_a_chunk_gives_what_it_gives_there(same) -> None:
    same("""
        def broken(n):
            yield from range(n)
            raise KeyError(n)

        with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
            for n in (0, 3, 4, 7):
                print(outcomes(iter(pool.imap(str, broken(n), chunksize=3))))
    """)


def test_chunks_of_all_sizes_give_all_results(same) -> None:
    same("""
        with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
            for size in (1, 2, 3, 7, 100, 5000):
                for count in (0, 1, 6, 7, 8, 1000):
                    expected = [str(i) for i in range(count)]
                    assert pool.map(str, range(count), size) == expected, (size, count)
                    assert list(pool.imap(str, range(count), size)) == expected, (size, count)
                    assert list(pool.imap(str, iter(range(count)), size)) == expected
                    found = pool.imap_unordered(str, range(count), size)
                    assert sorted(found, key=int) == expected, (size, count)
                    pairs = [(i, 0) for i in range(count)]
                    assert pool.starmap(max, pairs, size) == list(range(count))
            print("all")
    """)


# ---- Where the standard library waits for ever, or has nothing to say ----------------------------

DEATHS = """
    import multiprocessing, os, sys
    from shoal import WorkerDied

    def die_at_four(x):
        if x == 4:
            os._exit(7)
        return x

    def outcomes(results):
        found = []
        while True:
            try:
                found.append(next(results))
            except StopIteration:
                return found
            except WorkerDied as error:
                assert "die_at_four" in str(error), error
                found.append("died")
"""


@pytest.mark.parametrize("start", START_METHODS)
def test_a_death_fails_its_chunk_and_no_other(interpreter, start) -> None:
    program = (
        DEATHS
        + """
    if __name__ == "__main__":
        with multiprocessing.get_context(sys.argv[1]).Pool(1) as pool:
            print(outcomes(pool.imap(die_at_four, range(9), chunksize=3)))
            found = outcomes(pool.imap_unordered(die_at_four, range(9), chunksize=3))
            print(sorted(found, key=str))
            for call in (pool.map, lambda *a: pool.map_async(*a).get()):
                try:
                    print(call(die_at_four, range(9), 3))
                except WorkerDied:
                    print("died")
            print(pool.map(die_at_four, range(3), 2))
    """
    )
    printed = interpreter(program, start, env={"SHOAL_RUN": "1"}).check()
    assert printed.splitlines() == [
        "[0, 1, 2, 'died', 6, 7, 8]",
        "[0, 1, 2, 6, 7, 8, 'died']",
        "died",
        "died",
        "[0, 1, 2]",
    ]


def double_in_place(numbers: list[int]) -> list[int]:
    numbers[0] *= 2
    return numbers


def fail_at_four(x: int) -> int:
    if x == 4:
        raise ValueError(x)
    return x


@pytest.mark.parametrize("start", ["zygote", "fork", "spawn"])
def test_in_shoals_own_pools_a_chunk_is_pickled_together_and_each_item_is_a_task(start) -> None:
    with shoal.Pool(1, start=start) as pool:
        a = [1]
        assert pool.map(double_in_place, [a, a, a], chunksize=3) == [[2], [4], [8]]
        found: list[object] = []
        results = pool.imap(fail_at_four, range(6), chunksize=6)
        for _ in range(6):
            try:
                found.append(next(results))
            except ValueError:
                found.append("error")
        assert found == [0, 1, 2, 3, "error", 5]
    pool.join()


def test_a_chunk_may_be_larger_than_any_input(same) -> None:
    """More items than a unit's word can count, and more than 32 bits can."""
    printed = same("""
        context = multiprocessing.get_context(sys.argv[1])
        a = [1]
        for chunk in 2**26, 2**32, 2**32 + 1, 2**40:
            with context.Pool(2) as pool:
                print(pool.map(double_in_place, [a, a, a], chunksize=chunk))
                print(list(pool.imap(double_in_place, [a, a, a], chunksize=chunk)))
                print(list(pool.imap(double_in_place, iter([a, a, a]), chunksize=chunk)))
    """)
    assert set(printed.splitlines()) == {"[[8], [8], [8]]"}


@pytest.mark.parametrize("chunksize", [2**26, 2**32, 2**32 + 1, 2**70])
def test_a_chunk_of_an_executor_may_be_larger_than_any_input(chunksize: int) -> None:
    a = [1]
    with shoal.Executor(2) as executor:
        for items in [a, a, a], iter([a, a, a]):
            results = executor.map(double_in_place, items, chunksize=chunksize)
            assert list(results) == [[2], [4], [8]]  # unpickled together
