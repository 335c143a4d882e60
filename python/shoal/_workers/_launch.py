# SPDX-License-Identifier: Apache-2.0
"""Starts a fresh interpreter that runs `main(arguments)` of one of shoal's modules, and ends
shoal's own processes.

The arguments are sent pickled through a pipe, not on the command line, which limits their size and
shows them to other users. In a frozen application (`sys.frozen`: PyInstaller and similar) the
executable is the application itself. It is then started as the standard library starts its
processes, so that `multiprocessing.freeze_support()` recognizes the child, and the application's
main part does not run again.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys

from shoal._runtime import _imports, _leftovers
from shoal._runtime._native import core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

# With `-c` the current folder is in `sys.path`, and its files may shadow modules needed here.
_BOOT = """
import sys
known = {folder!r} in sys.path
sys.path.insert(0, {folder!r})
from shoal._workers import _launch
if known:
    del sys.path[0]
_launch._boot({fd})
"""


def _own_folder() -> str:
    """The folder of this shoal package, in case the fresh interpreter would not find it."""
    return os.path.abspath(__file__).removesuffix("/shoal/_workers/_launch.py")


def _boot(fd: int) -> None:
    """In the fresh interpreter: read what `spawn` has sent, and call `main`."""
    with os.fdopen(fd, "rb") as pipe:
        _leftovers.come_from(pickle.load(pipe))
        module, arguments = pickle.load(pipe)
    _imports.load(module).main(arguments)


class _Start:
    """The object that `freeze_support()` unpickles and calls in a frozen application."""

    def __init__(self, lineage: list[str], module: str, arguments: Any) -> None:
        self._lineage = lineage
        self._module = module
        self._arguments = arguments

    def _bootstrap(self, parent_sentinel: int) -> None:
        import importlib

        os.close(parent_sentinel)
        _leftovers.come_from(self._lineage)
        importlib.import_module(self._module).main(self._arguments)


def _is_frozen() -> bool:
    return bool(getattr(sys, "frozen", False))


def command(fd: int, executable: str | None = None) -> list[str]:
    if _is_frozen():
        from multiprocessing import spawn

        return spawn.get_command_line(pipe_handle=fd)
    from subprocess import _args_from_interpreter_flags  # type: ignore[attr-defined]

    flags: list[str] = _args_from_interpreter_flags()
    return [executable or sys.executable, *flags, "-c", _BOOT.format(fd=fd, folder=_own_folder())]


def spawn(module: str, arguments: Any, fds: tuple[int, ...], context: dict[str, Any]) -> int:
    """Start `module.main(arguments)` in a fresh interpreter; returns its pid. `fds` stay open in
    it.
    """
    from multiprocessing.util import spawnv_passfds

    read, write = os.pipe()
    pid = 0
    # A Ctrl-C must wait until the fresh interpreter has its handlers. The child inherits the
    # blocked SIGINT, and `_signals` unblocks it there.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with os.fdopen(write, "wb", 0) as pipe:
            try:
                executable = context.get("executable") or sys.executable
                arguments_of_it = command(read, executable)
                pid = int(spawnv_passfds(os.fsencode(executable), arguments_of_it, (*fds, read)))
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                os.close(read)
            for part in _message(module, arguments):
                _write(pipe, pickle.dumps(part))
    except BrokenPipeError:
        pass  # the child has died; its pidfd will report that
    except BaseException:  # of a signal handler, or `arguments` cannot be pickled
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        raise
    return pid


def _write(pipe: Any, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[pipe.write(left) :]


def _message(module: str, arguments: Any) -> tuple[Any, ...]:
    """The objects that the fresh interpreter reads from its pipe, in order."""
    lineage = _leftovers.lineage()
    if _is_frozen():
        return {}, _Start(lineage, module, arguments)  # the first: preparation data
    return lineage, (module, arguments)


def run_to_the_end(body: Callable[[], int]) -> NoReturn:
    """Run an agent or worker: `body()` returns the exit code. Ends with `os._exit`, because in a
    forked process the interpreter's own shutdown would run the exit handlers of the user's program.
    """
    code = 1
    try:
        code = body()
    except SystemExit as error:  # raised by a signal handler of the program
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        core.leave_session()
        os._exit(code)
