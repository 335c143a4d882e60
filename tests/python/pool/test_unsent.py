# SPDX-License-Identifier: Apache-2.0
"""Every task has an outcome, even if neither its result nor its error can be sent, or if the task
is stopped while one of them is encoded.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing.pool
import time
from typing import Any

import pytest
import shoal
import tasks
from pool_kinds import WATCHDOG

pytestmark = WATCHDOG


class Killed(BaseException):
    pass


class Unshowable:
    """Can neither be pickled nor shown."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        raise ValueError("will not be pickled")

    def __repr__(self) -> str:
        raise self.error


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, Killed])
def test_a_result_that_can_neither_be_pickled_nor_shown_is_an_error(error) -> None:
    with shoal.Pool(1) as pool:
        result = pool.apply_async(Unshowable, (error,))
        with pytest.raises(
            multiprocessing.pool.MaybeEncodingError, match=f"whose repr raises {error.__name__}"
        ):
            result.get()
        assert pool.apply(tasks.square, (3,)) == 9


class HardToSend(Exception):
    def __reduce__(self) -> Any:
        raise Killed("while the error was pickled")


def _raise_hard_to_send() -> None:
    raise HardToSend


def test_an_error_that_cannot_be_encoded_is_replaced_by_what_prevents_it() -> None:
    with shoal.Pool(1) as pool:
        with pytest.raises(Killed, match="while the error was pickled"):
            pool.apply_async(_raise_hard_to_send).get()
        assert pool.apply(tasks.square, (3,)) == 9


class Slow:
    """A result that takes long to be pickled, or cannot be pickled and takes long to be shown."""

    def __init__(self, begun: Any, pickled: bool) -> None:
        self.begun = begun
        self.pickled = pickled

    def _wait(self) -> None:
        self.begun.set()
        time.sleep(600)

    def __reduce__(self) -> Any:
        if self.pickled:
            self._wait()
        raise ValueError("will not be pickled")

    def __repr__(self) -> str:
        self._wait()
        return "slow"


class SlowError(Exception):
    def __init__(self, begun: Any) -> None:
        super().__init__()
        self.begun = begun

    def __reduce__(self) -> Any:
        self.begun.set()
        time.sleep(600)


def _end_slowly(begun: Any, how: str) -> Slow:
    if how == "error":
        raise SlowError(begun)
    return Slow(begun, how == "pickled")


@pytest.mark.parametrize("how", ["pickled", "shown", "error"])
def test_a_time_limit_holds_while_the_outcome_is_encoded(how: str) -> None:
    begun = shoal.Event()
    with shoal.Pool(1) as pool:
        with pytest.raises(shoal.TaskTimeout):
            pool.apply_async(_end_slowly, (begun, how), timeout=0.05).get()
        assert pool.apply(tasks.square, (3,)) == 9


@pytest.mark.parametrize("how", ["pickled", "shown", "error"])
def test_a_task_is_cancelled_while_its_outcome_is_encoded(how: str) -> None:
    begun = shoal.Event()
    with shoal.Pool(1) as pool:
        result = pool.apply_async(_end_slowly, (begun, how))
        begun.wait()
        assert result.cancel()
        with pytest.raises(concurrent.futures.CancelledError):
            result.get()
        assert pool.apply(tasks.square, (3,)) == 9


def test_without_memory_for_result_or_error_a_task_ends_with_a_memory_error(interpreter) -> None:
    program = """
    import shoal
    import shoal.multiprocessing

    def fill(queue):
        for size in [1 << bits for bits in range(20, 3, -2)]:
            try:
                while True:
                    queue.put(bytes(size))
            except MemoryError:
                pass

    def give():
        return bytes(300_000)

    def fail(value=None):
        raise ValueError("x" * 300_000)

    def outcome(result):
        try:
            return result.get()
        except BaseException as error:
            return isinstance(error, MemoryError)

    if __name__ == "__main__":
        stock = shoal.multiprocessing.get_context("fork").Pool(1)
        filled, queue = shoal.Event(), shoal.Queue()
        with shoal.Pool(1) as pool, stock:
            for each in pool, stock:
                each.apply(abs, (1,))
            results = [each.apply_async(filled.wait) for each in (pool, stock)]
            for function in (give, fail, int):
                results.append(pool.apply_async(function))
            results.append(pool.map_async(fail, range(3)))
            results.append(stock.map_async(fail, range(3), chunksize=2))
            fill(queue)
            filled.set()
            print([outcome(result) for result in results])
            while not queue.empty():
                queue.get()
            print([len(each.apply(give)) for each in (pool, stock)])
    """
    done = interpreter(program, env={"SHOAL_MEMORY_LIMIT": "64M"})
    assert done.check().splitlines() == [
        "[True, True, True, True, 0, True, True]",
        "[300000, 300000]",
    ]
