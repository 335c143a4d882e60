# SPDX-License-Identifier: Apache-2.0
"""Dict, List, Set, Namespace in rare use: odd keys, subclasses, containers in themselves."""

from __future__ import annotations

import importlib
import importlib.machinery
import math
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

import pytest
import shoal
import shoal.multiprocessing as smp

FORK = smp.get_context("fork")
SPAWN = smp.get_context("spawn")


def test_classes_and_functions_are_found_by_name() -> None:
    """They are somewhere else in each process that has imported their module itself."""
    table: Any = shoal.Dict()
    started = FORK.Event()

    def look() -> None:
        assert started.wait(10)
        import this_is_imported_late as late

        assert table[late.Class] == 1 and table[late.function] == 2 and table[late.Class, 0] == 3

    source = "class Class: pass\ndef function(): pass\n"

    class Finder:
        def find_spec(self, name: str, *_: Any) -> Any:
            loader: Any = self
            found = name == "this_is_imported_late"
            return importlib.machinery.ModuleSpec(name, loader) if found else None

        def create_module(self, _: Any) -> None:
            return None

        def exec_module(self, module: Any) -> None:
            exec(source, module.__dict__)

    finder: Any = Finder()
    sys.meta_path.append(finder)
    try:
        process = FORK.Process(target=look)
        process.start()
        kept = [type(str(number), (), {}) for number in range(100)]  # so that it lies elsewhere
        late: Any = importlib.import_module("this_is_imported_late")
        table.update({late.Class: 1, late.function: 2, (late.Class, 0): 3})
        started.set()
        process.join()
        assert process.exitcode == 0 and len(kept) == 100
    finally:
        sys.meta_path.remove(finder)
        sys.modules.pop("this_is_imported_late", None)


def test_the_same_hash_seed_does_not_make_addresses_the_same() -> None:
    code = """
import operator, shoal, shoal.multiprocessing as smp
keys = [int, len, (int, 'a'), range(0)]
table = shoal.Dict({key: 1 for key in keys})
for key in keys:
    process = smp.get_context('spawn').Process(target=operator.getitem, args=(table, key))
    process.start()
    process.join()
    assert process.exitcode == 0, key
"""
    environment = {**os.environ, "PYTHONHASHSEED": "5"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=60)


@dataclass(frozen=True)
class Counted:
    """Compared so often."""

    number: int
    compared = 0

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return isinstance(other, Counted) and self.number == other.number


def find_among(table: Any, count: int) -> None:
    started = time.process_time()
    assert table[Counted(count - 1)] == count - 1
    assert Counted(-1) not in table
    assert Counted.compared <= 2 * count
    assert time.process_time() - started < 1


def test_keys_of_another_hash_seed_are_each_looked_at_once() -> None:
    count = 3_000
    table: Any = shoal.Dict()
    for number in range(count):
        table[Counted(number)] = number
    process = SPAWN.Process(target=find_among, args=(table, count))
    process.start()
    process.join()
    assert process.exitcode == 0


def test_what_goes_through_a_dict_takes_one_moment() -> None:
    """Key by key, it would miss those that are gone when it asks for their values: as nan is."""
    table = shoal.Dict({"a": 1, math.nan: 2, "b": 3})
    assert 3 in table.values() and 4 not in table.values()
    updated = shoal.Dict[Any, Any]()
    updated.update(table)
    for other in (updated, shoal.Dict(table), shoal.Dict() | table, {} | table, table | {}):
        assert list(other.values()) == [1, 2, 3]
    assert list(reversed(table.values())) == [3, 2, 1]
    assert next(iter(reversed(table.keys()))) == "b"
    assert next(iter(reversed(table.items()))) == ("b", 3)


def append_and_pop(values: Any) -> None:
    while True:
        values.append(1)
        values.pop()


def test_a_list_that_others_change_all_the_time_can_be_sorted() -> None:
    """By a snapshot that nobody has changed meanwhile: they are asked to wait a moment."""
    count = 20_000
    values: Any = shoal.List(range(count))
    process = FORK.Process(target=append_and_pop, args=(values,))
    process.start()
    try:
        values.remove(count // 2)
        values.sort(reverse=True)
        values *= 2
        assert values[0] == count - 1 and len(values) >= 2 * (count - 1)
        changes = values._snapshot()[0]
        time.sleep(0.2)
        assert values._snapshot()[0] > changes  # the wish is over
    finally:
        process.kill()
        process.join()


def test_what_contains_itself_is_shown_once() -> None:
    values: Any = shoal.List([1])
    values.append(values)
    assert repr(values) == "shoal.List([1, [...]])"
    table: Any = shoal.Dict(values=values)
    table["self"] = table
    assert repr(table) == "shoal.Dict({'values': shoal.List([1, [...]]), 'self': {...}})"
    space: Any = shoal.Namespace()
    space.itself = space
    assert repr(space) == "shoal.Namespace(itself=Namespace(...))"
    values.clear()
    table.clear()
    del space.itself


class Settings(shoal.Namespace):
    rate = 3

    def total(self) -> int:
        return int(self.rate + self.b)

    @property
    def broken(self) -> int:
        raise AttributeError("its own")


class Squares(shoal.List[int]):
    def __init__(self, count: int, *, start: int) -> None:
        super().__init__(i * i for i in range(start, start + count))


def test_classes_of_the_program_have_what_they_define() -> None:
    settings: Any = Settings(b=2)
    assert settings.total() == 5 and settings.rate == 3
    settings.rate = 4
    assert settings.total() == 6 and Settings.rate == 3
    with pytest.raises(AttributeError, match="its own"):
        settings.broken
    with pytest.raises(AttributeError, match="'Namespace' object has no attribute 'mode'"):
        settings.mode
    assert Squares(3, start=2)[:] == [4, 9, 16]
