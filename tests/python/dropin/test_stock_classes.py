# SPDX-License-Identifier: Apache-2.0
"""Stock modules that shoal does not import: programs find what they expect of them all the same.

Each program runs in an interpreter of its own, as only its own imports count.
"""

from __future__ import annotations

import pytest

HEAD = """
import sys
import shoal
shoal.install()
import multiprocessing

def loaded(name):
    return "multiprocessing." + name in sys.modules
"""
MAKERS = {
    "Pool": ("pool", "multiprocessing.Pool(1)"),
    "Queue": ("queues", "multiprocessing.Queue()"),
    "JoinableQueue": ("queues", "multiprocessing.JoinableQueue(3)"),
    "SimpleQueue": ("queues", "multiprocessing.SimpleQueue()"),
    "Lock": ("synchronize", "multiprocessing.Lock()"),
    "RLock": ("synchronize", "multiprocessing.RLock()"),
    "Semaphore": ("synchronize", "multiprocessing.Semaphore(2)"),
    "BoundedSemaphore": ("synchronize", "multiprocessing.BoundedSemaphore(value=2)"),
    "Condition": ("synchronize", "multiprocessing.Condition()"),
    "Event": ("synchronize", "multiprocessing.Event()"),
    "Barrier": ("synchronize", "multiprocessing.Barrier(2)"),
}


@pytest.mark.parametrize("name", MAKERS)
def test_an_object_is_of_the_stock_class_though_nobody_has_imported_it(interpreter, name) -> None:
    module, made = MAKERS[name]
    arguments = {"Pool": (1,), "Barrier": (2,)}.get(name, ())
    interpreter(
        HEAD
        + f"""
if __name__ == "__main__":
    made = {made}
    assert not loaded({module!r})
    assert isinstance(made, multiprocessing.{module}.{name})
    assert isinstance(made, shoal.{name})
    repr(made)
    another = multiprocessing.get_context("spawn").{name}(*{arguments})
    assert type(another) is type(made)
    for pool in (made, another) if {name!r} == "Pool" else ():
        pool.terminate()
"""
    ).check()


def test_results_are_of_the_stock_classes(interpreter) -> None:
    interpreter(
        HEAD
        + """
if __name__ == "__main__":
    with multiprocessing.Pool(1) as pool:
        made = (
            pool.apply_async(abs, (1,)),
            pool.map_async(abs, [1]),
            pool.imap(abs, [1]),
            pool.imap_unordered(abs, [1]),
        )
        assert not loaded("pool")
        from multiprocessing.pool import ApplyResult, IMapIterator, IMapUnorderedIterator, MapResult
        kinds = ApplyResult, MapResult, IMapIterator, IMapUnorderedIterator
        assert [isinstance(one, kind) for one, kind in zip(made, kinds)] == [True] * 4
        assert isinstance(made[3], IMapIterator) and not isinstance(made[2], IMapUnorderedIterator)
        assert isinstance(pool.map_async(abs, [1]), MapResult)
"""
    ).check()


def test_submodules_that_the_stock_classes_bring_are_there(interpreter) -> None:
    interpreter(
        HEAD
        + """
assert not hasattr(multiprocessing, "queues")  # as in the standard library
queue = multiprocessing.Queue()
try:
    queue.get(timeout=0)
except multiprocessing.queues.Empty:
    pass
assert multiprocessing.connection.wait([queue._reader], 0) == []
assert multiprocessing.synchronize and multiprocessing.util
for name in ("no_such_thing", "heap", "managers"):
    try:
        getattr(multiprocessing, name)
        assert name != "no_such_thing"
    except AttributeError as error:
        assert str(error) == f"module 'multiprocessing' has no attribute {name!r}"
try:
    from multiprocessing import no_such_thing
except ImportError:
    pass
"""
    ).check()


@pytest.mark.parametrize(
    "call",
    [
        "Lock(1)",
        "Lock(on_owner_death='raise')",
        "Lock(ctx=None)",
        "Pool(1, None, (), None, None)",
        "Pool(context=None)",
        "Queue(1, 2)",
        "Barrier()",
        "Pool(0)",
        "Pool(1, 5)",
    ],
)
def test_wrong_calls_have_the_stock_errors(interpreter, call) -> None:
    program = f"""
import multiprocessing
try:
    multiprocessing.{call}
except Exception as error:
    print(type(error).__name__, error)
"""
    stock = interpreter(program).check()
    assert stock
    assert interpreter("import shoal; shoal.install()" + program).check() == stock


def test_a_queue_prints_what_cannot_be_pickled(interpreter) -> None:
    finished = interpreter(
        HEAD
        + """
queue = multiprocessing.Queue()
queue.put(sys._getframe())
queue.put(1)
print(queue.get())
"""
    )
    assert finished.check() == "1\n" and "Traceback" in finished.err


def test_private_names_of_the_stock_queue_are_there(interpreter) -> None:
    interpreter(
        HEAD
        + """
queue = multiprocessing.Queue()
assert callable(queue._on_queue_feeder_error) and not hasattr(queue, "no_such_thing")
"""
    ).check()


def test_classes_follow_whoever_imports_and_when(interpreter) -> None:
    interpreter(
        HEAD
        + """
lock = multiprocessing.Lock()
shoal.uninstall()
import multiprocessing.synchronize
assert isinstance(lock, multiprocessing.synchronize.Lock)
assert not isinstance(multiprocessing.Lock(), shoal.Lock)
shoal.install()
assert isinstance(multiprocessing.Lock(), shoal.Lock)
"""
    ).check()
