# SPDX-License-Identifier: Apache-2.0
"""The fork server that is started warm: it is the standard library's in all that a program sees."""

from __future__ import annotations

import sys

import pytest

HEAD = """
import os, signal, sys
import shoal.multiprocessing as multiprocessing
from multiprocessing import forkserver

context = multiprocessing.get_context("forkserver")

def run(target, *arguments):
    child = context.Process(target=target, args=arguments)
    child.start()
    child.join()
    assert child.exitcode == 0, child.exitcode
"""


def test_children_find_what_the_program_has_and_no_trace_of_how(interpreter) -> None:
    interpreter(
        HEAD
        + """
import fractions

def look():
    import gc
    assert gc.isenabled() and gc.get_freeze_count() > 0  # the server was warm
    assert __name__ == "__mp_main__" and multiprocessing.parent_process() is not None
    assert not [name for name in os.environ if name in ("SHOAL_MAIN", "SHOAL_MODULES")]

if __name__ == "__main__":
    before = list(forkserver._forkserver._preload_modules)
    run(look)
    assert forkserver._forkserver._preload_modules == before
    assert "SHOAL_MAIN" not in os.environ and "SHOAL_MODULES" not in os.environ
"""
    ).check()


def test_the_users_preloaded_modules_are_imported_once_and_first(interpreter) -> None:
    interpreter.folder.joinpath("preloaded.py").write_text("import os\nPID = os.getpid()\n")
    interpreter(
        HEAD
        + """
def look(path):
    assert sys.modules["preloaded"].PID == os.getppid()

if __name__ == "__main__":
    context.set_forkserver_preload(["preloaded"])
    run(look, "")
""",
        env={"PYTHONPATH": str(interpreter.folder)},
    ).check()


def test_a_killed_fork_server_is_started_again_and_is_warm(interpreter) -> None:
    out = interpreter(
        HEAD
        + """
def look():
    import gc
    print(gc.get_freeze_count() > 0, flush=True)

if __name__ == "__main__":
    run(look)
    first = forkserver._forkserver._forkserver_pid
    os.kill(first, signal.SIGKILL)
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
    run(look)
    assert forkserver._forkserver._forkserver_pid != first
"""
    ).check()
    assert out == "True\nTrue\n"


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="there the server itself imports it, once")
def test_a_main_file_that_changes_is_run_as_it_is_then(interpreter) -> None:
    """As it is with the standard library, which reads it for each child."""
    out = interpreter(
        HEAD
        + """
def look():
    print("old", flush=True)

if __name__ == "__main__":
    run(look)
    with open(__file__) as file:
        text = file.read()
    with open(__file__, "w") as file:
        file.write(text.replace('"old"', '"changed"', 1))
    run(look)
"""
    ).check()
    assert out == "old\nchanged\n"


@pytest.mark.parametrize("module_first", [True, False])
def test_both_watchers_of_the_module_have_their_turn(interpreter, module_first: bool) -> None:
    interpreter(
        """
        import sys
        if sys.argv[1] == "True":
            import multiprocessing.forkserver
        import shoal, shoal.multiprocessing
        shoal.install()
        lock = shoal.multiprocessing.Lock()
        import multiprocessing.forkserver as module

        assert module.ForkServer.ensure_running.__wrapped__ is not None
        """,
        str(module_first),
    ).check()
