# SPDX-License-Identifier: Apache-2.0
"""Functions that tests run in workers: a module of its own, so every start method finds them."""

from __future__ import annotations

import atexit
import faulthandler
import multiprocessing
import os
import pickle
import signal
import sys
import time
from multiprocessing import util
from pathlib import Path
from typing import Any

state: list[Any] = []


def square(x: int) -> int:
    return x * x


def echo(x: Any) -> Any:
    return x


def add(x: Any, y: Any = 0, *, z: Any = 0) -> Any:
    return x + y + z


def everything(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, kwargs


def divide(x: int, y: int) -> float:
    return x / y


def fail_at_three(x: int) -> int:
    if x == 3:
        raise ValueError("three", x)
    return x


def fail_from(x: int) -> int:
    """Fails for all items from 3 on, each with an error of its own."""
    if x >= 3:
        raise ValueError(x)
    return x


def pid(_: Any = None) -> int:
    return os.getpid()


def process_name(_: Any = None) -> tuple[str, bool]:
    process = multiprocessing.current_process()
    return process.name, process.daemon


def touch_at_end(folder: str) -> None:
    """An initializer: leaves a file when a finalizer runs, and another when `atexit` functions
    run.
    """
    path = Path(folder)
    util.Finalize(None, (path / f"finalizer-{os.getpid()}").touch, exitpriority=0)
    atexit.register((path / f"atexit-{os.getpid()}").touch)


def remember(*values: Any) -> None:
    state.extend(values)


def remembered(_: Any = None) -> list[Any]:
    return list(state)


def fail_to_start(message: str) -> None:
    raise RuntimeError(message)


def touch(path: str, text: str = "") -> None:
    """Tell the test that this has run: the file appears whole."""
    new = Path(f"{path}.{os.getpid()}.new")
    new.write_text(text or str(os.getpid()))
    new.rename(path)


def wait_for(path: str) -> None:
    while not os.path.exists(path):
        time.sleep(0.002)


def wait_and_return(path: str, value: Any = None) -> Any:
    wait_for(path)
    return value


def announce_and_wait(announced: str, until: str) -> int:
    touch(announced)
    wait_for(until)
    return os.getpid()


def size_when_told(path: str, value: Any) -> int:
    wait_for(path)
    return len(value)


def append(path: str, text: Any) -> Any:
    """Appends one line to the file; short appends are atomic."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"{text}\n")
    return text


def die(number: int = signal.SIGKILL) -> None:
    faulthandler.disable()  # pytest's handler would print the stack of an intended crash
    os.kill(os.getpid(), number)
    time.sleep(60)


def die_of_anything(number: int, *args: Any, **kwargs: Any) -> None:
    die(number)


def die_of_negative(item: list[int]) -> list[int]:
    if item[0] < 0:
        die()
    return item


class Plain:
    """An instance that only pickle can encode."""

    def __init__(self, value: Any) -> None:
        self.value = value


def as_list(x: Any) -> list[Any]:
    return [x]


def die_at(x: int, fatal: int) -> int:
    if x == fatal:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def leave(code: int) -> None:
    os._exit(code)


def raise_(error: BaseException) -> None:
    raise error


def system_exit(code: Any = 3) -> None:
    sys.exit(code)


def keyboard_interrupt() -> None:
    raise KeyboardInterrupt


def generator_exit() -> None:
    raise GeneratorExit("in a task")


def recurse(depth: int = 0) -> int:
    return recurse(depth + 1) + 1


def deep_list(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


class CustomBase(BaseException):
    """Not an Exception."""


def custom_base() -> None:
    raise CustomBase("base", 7)


class OddError(Exception):
    """Its constructor does not accept the values in `args`: the default unpickling fails."""

    def __init__(self, code: int, *, detail: str) -> None:
        super().__init__(f"code {code}: {detail}")
        self.code = code
        self.detail = detail


def raise_odd() -> None:
    raise OddError(5, detail="odd")


class TwoArguments(Exception):
    """Takes two arguments and passes one to its base: can be pickled, but not unpickled."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


def raise_two_arguments() -> None:
    raise TwoArguments("first", "second")


def raise_unpicklable() -> None:
    error = ValueError("with a lock")
    error.lock = open(os.devnull)  # type: ignore[attr-defined]  # noqa: SIM115
    raise error


def raise_with_unpicklable_argument() -> None:
    raise ValueError("with a file", open(os.devnull))  # noqa: SIM115


class FailsToUnpickle:
    """Pickles anywhere; unpickling it raises."""

    def __reduce__(self) -> Any:
        return _refuse, ("refused",)


def _refuse(text: str) -> None:
    raise pickle.UnpicklingError(text)


class ExitsOnUnpickle:
    def __reduce__(self) -> Any:
        return sys.exit, (9,)


class FailsToPickle:
    def __reduce__(self) -> Any:
        raise RuntimeError("will not be pickled")


def return_(what: str) -> Any:
    """A result that causes trouble, chosen by name."""
    return {
        "file": lambda: open(os.devnull),
        "fails to pickle": FailsToPickle,
        "fails to unpickle": FailsToUnpickle,
        "exits on unpickle": ExitsOnUnpickle,
        "generator": lambda: (x for x in ()),
    }[what]()


class Counter:
    """Counts its calls: shows how often it was pickled."""

    def __init__(self) -> None:
        self.calls = 0

    def count(self, _: Any) -> int:
        self.calls += 1
        return self.calls

    def __call__(self, _: Any) -> int:
        return self.count(_)


def identity_of(x: Any) -> int:
    return id(x)


def sleep_for_ever() -> None:
    while True:
        time.sleep(1000)


def spin_for_ever() -> None:
    while True:
        pass


def swallow_for_ever() -> None:
    while True:
        try:
            time.sleep(0.01)
        except BaseException:
            pass


def count_in_c() -> int:
    return sum(range(10**12))


def sleep_in_finally(path: str) -> None:
    try:
        time.sleep(1000)
    finally:
        touch(path)


def sleep_for_ever_with(_: Any) -> None:
    sleep_for_ever()
