# SPDX-License-Identifier: Apache-2.0
"""Definitions across two processes. Each theme is a program, its own `__main__`: definitions/."""

from __future__ import annotations

import gc
import os
import signal
import sys
import types
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from shoal._pickling import _names, _pickler
from shoal._pickling._applied import Applied
from shoal._pickling._definitions import Definitions, ForkedMain

HERE = Path(__file__).parent
THEMES = sorted(path.stem for path in (HERE / "definitions").glob("*.py"))


@pytest.mark.parametrize("worker", ["clean", "fork"])
@pytest.mark.parametrize("theme", THEMES)
def test_what_main_defines_works_in_a_worker(theme: str, worker: str, interpreter: Any) -> None:
    path = os.pathsep.join([str(HERE), *(p for p in sys.path if p)])
    program = HERE / "definitions" / f"{theme}.py"
    done = interpreter(program, worker, env={"PYTHONPATH": path})
    assert done.check().endswith("fine\n"), done.err


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """An empty `__main__` in this process."""
    module = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    monkeypatch.setitem(sys.modules, "__mp_main__", module)
    return module


def define(main: types.ModuleType, source: str) -> None:
    exec(source, vars(main))


def needs(definitions: Definitions, main: types.ModuleType, name: str) -> int:
    """How many entries it takes to bring `name` up to date."""
    before = definitions.length
    definitions.require([("__main__", name)])
    return definitions.length - before


def test_functions_of_importable_modules_need_no_definitions() -> None:
    definitions = Definitions()
    for function in (os.path.join, len, dict, str.upper, define):
        assert definitions.function_key(function) == definitions.function_key(function)
    assert definitions.length == 0


def test_a_finder_that_raises_once_decides_nothing_for_good(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A handler of SIGALRM that raises may do so in any finder, at the first use of a module."""
    (tmp_path / "asked_for_twice.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    __import__("asked_for_twice")

    class Interrupted:
        def find_spec(self, *_: Any) -> None:
            raise TimeoutError

    with monkeypatch.context() as patch:
        patch.setattr(sys, "meta_path", [Interrupted()])
        assert not _names.importable("asked_for_twice")
        assert _names.importable("shoal._runtime._session")
    assert _names.importable("asked_for_twice")
    del sys.modules["asked_for_twice"]


def test_a_name_is_sent_once_and_again_when_it_is_bound_anew(main: types.ModuleType) -> None:
    definitions = Definitions()
    define(main, "x = 1000\ndef f(): return x")
    assert [needs(definitions, main, "f") for _ in range(3)] == [1, 0, 0]
    define(main, "x = 2000")
    assert [needs(definitions, main, "f") for _ in range(2)] == [1, 0]


def test_entries_of_plain_values_become_empty_when_all_are_sent_again(
    main: types.ModuleType,
) -> None:
    definitions = Definitions()
    define(main, "x = 0\ndef f(): return x")
    for i in range(10):
        main.x = i * 1000  # type: ignore[attr-defined]
        needs(definitions, main, "f")
    full = [i for i in range(definitions.length) if definitions.entry(i)]
    assert full == [0, definitions.length - 1]


def test_a_snapshot_needs_only_what_came_later(main: types.ModuleType) -> None:
    definitions = Definitions()
    define(main, "x = [1]\ny = 5\ndef f(): return g(x, y)\ndef g(a, b): return a, b")
    definitions.workers_have(ForkedMain())
    assert needs(definitions, main, "f") == 0
    define(main, "y = 6")
    assert needs(definitions, main, "f") == 1
    define(main, "def g(a, b): return h(a)\ndef h(a): return a")
    assert needs(definitions, main, "f") == 1
    assert needs(definitions, main, "f") == 0


def test_a_forked_main_module_does_not_keep_what_it_saw(main: types.ModuleType) -> None:
    define(main, "class C: pass\nc = C()")
    seen = weakref.ref(main.c)  # type: ignore[attr-defined]
    forked = ForkedMain()
    del main.c  # type: ignore[attr-defined]
    gc.collect()
    assert seen() is None and not forked.holds(("__main__", "c"), _names.ABSENT)


def test_hooks_of_an_argument_run_once(main: types.ModuleType) -> None:
    definitions = Definitions()
    define(
        main,
        "calls = []\n"
        "class C:\n"
        "  def __getstate__(self):\n    calls.append(1)\n    return {'a': 1}\n",
    )
    _pickler.dumps([main.C(), lambda: 1], definitions)  # type: ignore[attr-defined]
    assert main.calls == [1]  # type: ignore[attr-defined]


class Alarm(Exception):
    """Raised by the handler of SIGALRM, as programs that limit their own time do."""


@pytest.fixture
def alarm() -> Iterator[None]:
    def handle(*_: Any) -> None:
        raise Alarm

    before = signal.signal(signal.SIGALRM, handle)
    yield
    signal.signal(signal.SIGALRM, before)


_ALARM_IN_REDUCE = """
class C:
  def __reduce__(self):
    if not seen:
      seen.append(1)
      signal.raise_signal(signal.SIGALRM)
    return list, ([5],)
x = C()
"""
_ALARM_AT_CLASS = """
class Meta(type):
  def __getattr__(cls, name):
    if name == "_field_defaults" and not seen:
      seen.append(1)
      signal.raise_signal(signal.SIGALRM)
    raise AttributeError(name)
class x(metaclass=Meta): pass
"""


@pytest.mark.parametrize("source", [_ALARM_IN_REDUCE, _ALARM_AT_CLASS])
def test_a_handler_that_raises_during_the_encoding_leaves_no_name_out(
    main: types.ModuleType, alarm: None, source: str
) -> None:
    definitions = Definitions()
    define(main, "import signal\nseen = []" + source + "def f(): return x")
    with pytest.raises(Alarm):
        needs(definitions, main, "f")
    assert definitions.length == 0
    assert needs(definitions, main, "f") == 1
    worker = types.ModuleType("__main__")
    sys.modules["__main__"] = worker
    Applied().apply(definitions.entry(0))
    assert worker.f() is worker.x  # type: ignore[attr-defined]


def test_a_handlers_exception_is_told_from_that_of_a_value_that_cannot_be_sent(
    main: types.ModuleType, alarm: None
) -> None:
    definitions = Definitions()
    define(
        main,
        "import signal\ncalls = []\n"
        "class C:\n"
        "  def __reduce__(self):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 2: signal.raise_signal(signal.SIGALRM)\n"
        "    raise ValueError('not me')\n"
        "x = C()\ndef f(): return x\n",
    )
    with pytest.raises(Alarm):
        needs(definitions, main, "f")
    assert needs(definitions, main, "f") == 1


def test_definitions_of_two_pools_are_independent(main: types.ModuleType) -> None:
    one, other = Definitions(), Definitions()
    define(main, "def f(): return 1")
    assert needs(one, main, "f") == 1
    assert needs(other, main, "f") == 1


def test_definitions_are_collected_with_their_pool(main: types.ModuleType) -> None:
    definitions = Definitions()
    define(main, "def f(): return 1")
    definitions.function_key(main.f)  # type: ignore[attr-defined]
    alive = weakref.ref(definitions)
    del definitions
    assert alive() is None


def test_applying_an_entry_leaves_the_workers_own_names_alone(main: types.ModuleType) -> None:
    definitions = Definitions()
    define(main, "x = 1000\ndef f(): return x")
    needs(definitions, main, "f")
    main.x = 2000  # type: ignore[attr-defined]
    needs(definitions, main, "f")
    worker = types.ModuleType("__main__")
    sys.modules["__main__"] = worker
    applied = Applied()
    applied.apply(definitions.entry(0))
    assert worker.f() == 1000  # type: ignore[attr-defined]
    worker.x = "mine"  # type: ignore[attr-defined]
    applied.apply(definitions.entry(1))
    assert worker.f() == "mine" and applied.length == 2  # type: ignore[attr-defined]


def test_a_thousand_mutually_recursive_functions_do_not_recurse(main: types.ModuleType) -> None:
    count = 1000
    define(
        main,
        "".join(f"def f{i}(n): return n and f{(i + 1) % count}(n - 1)\n" for i in range(count)),
    )
    definitions = Definitions()
    assert needs(definitions, main, "f0") == 1
    worker = types.ModuleType("__main__")
    sys.modules["__main__"] = worker
    Applied().apply(definitions.entry(0))
    assert worker.f0(50) == 0  # type: ignore[attr-defined]


def test_global_names_are_those_that_dis_shows() -> None:
    import dis

    loads = {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
    many = "\n".join(f"    use(name_{i})" for i in range(600))  # arguments beyond one byte
    sources = [Path(dis.__file__), Path(types.__file__), Path(os.__file__), Path(weakref.__file__)]
    codes = [compile(path.read_text(), str(path), "exec") for path in sources]
    for code in [*codes, compile(f"def f():\n{many}\nclass C: x = y", "many", "exec")]:
        shown = {
            instruction.argval
            for part in _names.nested_codes(code)
            for instruction in dis.get_instructions(part)
            if instruction.opname in loads
        }
        assert set(_names.global_names(code)) == shown
