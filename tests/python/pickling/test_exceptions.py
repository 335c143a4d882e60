# SPDX-License-Identifier: Apache-2.0
"""Exceptions across processes: the original wherever possible, else a stand-in that says why."""

from __future__ import annotations

import os
import pickle
import sys
import threading
from typing import Any

import pytest
import shoal.errors
from shoal._pickling._exceptions import decode_exception, encode_exception
from shoal.errors import RemoteError


class TwoArguments(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")


class WithState(Exception):
    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = 7


class Silent(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Exits(Exception):
    def __reduce__(self) -> Any:
        return sys.exit, (3,)


class NotAnError(Exception):
    def __reduce__(self) -> Any:
        return int, ("5",)


class OwnBase(BaseException):
    pass


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def sent(error: BaseException) -> BaseException:
    fields = encode_exception(raised(error))
    pickle.dumps(fields)
    for field in fields:
        assert isinstance(field, (str, bytes, tuple, type(None)))
    return decode_exception(fields)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a", 1),
        KeyError("k"),
        WithState("hello"),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        OwnBase("b"),
        StopIteration(5),
        FileNotFoundError(2, "No such file", "name"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        MemoryError(),
        RecursionError("deep"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_an_exception_arrives_as_itself(error: BaseException) -> None:
    result = sent(error)
    assert type(result) is type(error) and result.args == error.args
    assert vars(result).keys() >= vars(error).keys()
    assert str(result) == str(error)


def test_the_cause_shows_the_workers_traceback_as_the_standard_library_does() -> None:
    cause = sent(ValueError("x")).__cause__
    assert type(cause).__name__ == "RemoteTraceback"
    text = str(cause)
    assert text.startswith('\n"""\nTraceback (most recent call last):\n')
    assert text.endswith('ValueError: x\n"""') and "in raised" in text


def test_causes_and_contexts_are_in_the_text_and_in_the_chain() -> None:
    try:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise ValueError("second") from error
    except ValueError as error:
        fields = encode_exception(error)
    assert "KeyError: 'first'" in fields[3] and "direct cause" in fields[3]
    assert fields[7] == ("KeyError: 'first'",)


def test_a_chain_that_is_a_circle_ends() -> None:
    a, b = ValueError("a"), ValueError("b")
    a.__cause__, b.__cause__ = b, a
    fields = encode_exception(a)
    assert fields[7] == ("ValueError: b",)
    assert type(decode_exception(fields)) is ValueError


def test_an_exception_that_refers_to_itself_arrives() -> None:
    error: Any = WithState("x")
    error.me = error
    result: Any = sent(error)
    assert result.me is result


def test_wrong_constructor_becomes_a_stand_in() -> None:
    result = sent(TwoArguments(1, 2))
    assert type(result) is RemoteError
    assert result.type_name.endswith("TwoArguments") and result.message == "1 and 2"
    assert "in raised" in result.traceback_text and "could not be unpickled" in result.reason
    assert "TwoArguments: 1 and 2" in str(result) and "stand-in" in str(result)


def test_unpicklable_attribute_becomes_a_stand_in_that_names_it() -> None:
    error = WithState("x")
    error.lock = threading.Lock()  # type: ignore[attr-defined]
    result = sent(error)
    assert isinstance(result, RemoteError) and "_thread.lock" in result.reason


def test_str_and_repr_that_raise_are_harmless() -> None:
    result = sent(Silent("a"))
    assert type(result) is Silent and result.args == ("a",)
    error = Silent(threading.Lock())
    stand_in = sent(error)
    assert isinstance(stand_in, RemoteError) and "RuntimeError" in stand_in.message


def test_a_pickle_that_exits_or_is_no_exception_becomes_a_stand_in() -> None:
    result = sent(Exits())
    assert isinstance(result, RemoteError) and "SystemExit" in result.reason
    result = sent(NotAnError())
    assert isinstance(result, RemoteError) and "int" in result.reason


def test_deep_recursion_arrives() -> None:
    def deep() -> None:
        deep()

    try:
        deep()
    except RecursionError as error:
        result = decode_exception(encode_exception(error))
    assert type(result) is RecursionError and "repeated" in str(result.__cause__)


def test_an_exception_of_a_class_the_parent_lacks_becomes_a_stand_in() -> None:
    fields = encode_exception(raised(WithState("x")))
    broken = fields[4]
    assert broken is not None
    changed = (*fields[:4], broken.replace(b"WithState", b"NotThere_"), *fields[5:])
    result = decode_exception(changed)  # type: ignore[arg-type]
    assert isinstance(result, RemoteError) and "NotThere_" in result.reason


def test_a_local_exception_class_arrives_as_itself() -> None:
    class Local(Exception):
        pass

    assert type(sent(Local("x"))) is Local


@pytest.mark.skipif(sys.version_info < (3, 11), reason="notes and groups are 3.11's")
def test_notes_and_groups_arrive() -> None:
    error = ValueError("x")
    error.add_note("a note")  # type: ignore[attr-defined]
    group = ExceptionGroup("g", [error, KeyError("k")])  # type: ignore[name-defined]  # noqa: F821
    result: Any = sent(group)
    assert type(result) is type(group) and len(result.exceptions) == 2
    assert result.exceptions[0].__notes__ == ["a note"]
    noted = TwoArguments(1, 2)
    noted.add_note("kept")  # type: ignore[attr-defined]
    assert sent(noted).__notes__ == ["kept"]  # type: ignore[attr-defined]


def test_shoals_errors_pickle_with_their_attributes() -> None:
    died = shoal.errors.WorkerDied("gone", pid=3, signal=9, task="f", arguments="(1,)")
    for error in (died, RemoteError("T", "m", "tb", "why"), shoal.errors.TaskTimeout("late")):
        result = pickle.loads(pickle.dumps(error))
        assert type(result) is type(error)
        assert vars(result) == vars(error) and str(result) == str(error)


def test_shoals_errors_are_what_users_already_catch() -> None:
    from concurrent.futures.process import BrokenProcessPool

    bases = {
        "WorkerDied": BrokenProcessPool,
        "TaskTimeout": TimeoutError,
        "PoolClosed": (ValueError, RuntimeError),
        "MemoryExhausted": MemoryError,
    }
    for name, wanted in bases.items():
        kind = getattr(shoal.errors, name)
        for base in wanted if isinstance(wanted, tuple) else (wanted,):
            assert issubclass(kind, base)
    for name in shoal.errors.__all__:
        assert issubclass(getattr(shoal.errors, name), (shoal.errors.ShoalError, Warning))


def test_an_exception_crosses_a_real_process_border() -> None:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        with open(writer, "wb") as file:
            pickle.dump(encode_exception(raised(WithState("from the child"))), file)
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as inbox:
        result: Any = decode_exception(pickle.load(inbox))
    os.waitpid(pid, 0)
    assert type(result) is WithState and (result.code, result.args) == (7, ("from the child",))
