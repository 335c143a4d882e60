# SPDX-License-Identifier: Apache-2.0
"""The engine of the drop-in's pools: workers are processes of the standard library's contexts
(`_processes.py`, `_keeper.py`).

1. The start method fork forks the caller whatever threads it has, with CPython's own warning.
2. `initargs` may contain objects that only inheritance can carry (locks, queues, connections).
   Workers that are copies of this process use these very objects. For fresh interpreters they are
   pickled as for a process being spawned, and a descriptor is sent as its number in this process.
3. Fresh interpreters import a main module that has a guard as `__mp_main__`, as in the standard
   library. A main module without a guard would start the program again, which the standard library
   turns into an error; here its functions are sent to the workers instead.
4. Fresh interpreters have this process's `authkey`, so that proxies of managers work in them.
Design: docs/design/drop_in.md
"""

from __future__ import annotations

import itertools
import multiprocessing
import multiprocessing.context
import sys
import weakref
from collections.abc import Callable
from types import FunctionType, ModuleType

from shoal._dropin import _keeper, _startup
from shoal._pickling import _definitions, _names, _pickler
from shoal._pool import _engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_context_module: Any = multiprocessing.context

# The keys of `get_preparation_data()` that are passed on to workers.
_CARRIED = ("log_to_stderr", "log_level", "orig_dir", "start_method")
_tokens = itertools.count()

# The prefix of a worker's process name, by start method.
PREFIXES = {"fork": "Fork", "spawn": "Spawn", "forkserver": "ForkServer"}

Context = multiprocessing.context.BaseContext | ModuleType | None


def concrete_context(context: Context) -> multiprocessing.context.BaseContext:
    """The context itself; for None or the module `multiprocessing`, the default context."""
    if context is None or isinstance(context, ModuleType):
        return multiprocessing.get_context()
    return context.get_context()


class DropInEngine(_engine.Engine):
    """An engine with the start method of a context. Its initializer may use inherited objects."""

    results_by_name = True
    chunks_are_tasks = True
    reads_unfetched = True  # the standard library's pool reads every input to its end

    def __init__(
        self,
        context: multiprocessing.context.BaseContext,
        workers: int | None,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        tasks_per_worker: int | None,
        name: str,
    ) -> None:
        method = context.get_start_method()
        self.force_fork = method == "fork"
        if not self.force_fork:
            # A main module that is being imported by a child must not make pools: that would be a
            # fork bomb.
            from multiprocessing import spawn

            spawn._check_not_importing_main()  # type: ignore[attr-defined]
        if method == "forkserver":
            from shoal._runtime import _children

            _children.start_fork_server()
        # The names that workers get by importing the main module; None: they do not import it.
        self._main_names = None
        if method != "fork":
            from shoal._workers import _main_module

            self._main_names = _main_module.names_after_import()
        self._descriptors: list[int] = []
        weakref.finalize(self, _startup.close_all, self._descriptors).atexit = False
        self.start_method = method
        self.results: weakref.WeakSet[Any] = weakref.WeakSet()  # result objects of maps
        # Returns the Pool object; None if it is gone or the engine is an executor's.
        self.pool: Callable[[], Any] = _no_pool
        start = _engine.START_OF_METHOD[method]
        super().__init__(workers, initializer, initargs, tasks_per_worker, start, name)

    def _make_agent(self) -> Any:
        """The keeper, with one exception: forkserver without an importable main module uses an
        agent process. The agent can be a copy of this process, so that its workers have what is
        defined in a notebook.
        """
        if self.start_method == "forkserver" and self._main_names is None:
            return super()._make_agent()
        return _keeper.Keeper()

    def preparation(self) -> dict[str, Any]:
        """The preparation data that the standard library sends to its processes; for workers of an
        agent.
        """
        from multiprocessing import spawn

        data = spawn.get_preparation_data(self.name)
        return {key: data[key] for key in _CARRIED if key in data}

    def worker_context(self) -> dict[str, Any]:
        """The context that a keeper's worker does not get from the standard library: see
        `_context`.
        """
        if self.force_fork:
            return {}
        from multiprocessing import spawn

        data = spawn.get_preparation_data(self.name)
        main = {key: value for key, value in data.items() if key.startswith("init_main_from")}
        return {
            "main_file": getattr(sys.modules.get("__main__"), "__file__", None),
            "preparation": None if self._main_names is None else main,
        }

    def store_startup(self) -> None:
        """Called once the template is decided. If workers inherit this process's memory, they find
        the initializer there; otherwise it is pickled.
        """
        if self._agent.template.is_copy:
            if self.force_fork:
                self.definitions.workers_have(_MainOfFork())
            if self._startup is not None:
                token = next(_tokens)
                _startup.inherited[token] = self._startup
                weakref.finalize(self, _startup.inherited.pop, token, None).atexit = False
                self._startup = _startup.run_inherited, (token,)
            super().store_startup()
            return
        if self._main_names is not None:
            self.definitions.workers_have(_definitions.ImportedMain(self._main_names))
        authkey = bytes(multiprocessing.current_process().authkey)
        self._startup = _startup.run_in_fresh_interpreter, (authkey, *(self._startup or ()))
        _pickler._look_at_registrations()  # reducers of objects shared by inheritance, like Values
        _context_module.set_spawning_popen(_startup.Spawning(self._descriptors))
        try:
            super().store_startup()
        finally:
            _context_module.set_spawning_popen(None)


def _no_pool() -> None:
    return None


class _MainOfFork(_definitions.ForkedMain):
    """In a forked worker, globals keep the values that they had at the fork, even if the program
    rebinds them later.

    Functions and classes that are defined again are still sent: tasks refer to them by name.
    """

    def holds(self, key: tuple[str, str], value: Any) -> bool:
        if super().holds(key, value):
            return True
        is_definition = isinstance(value, (FunctionType, type))
        return not is_definition and key[0] == _names.MAIN and key[1] in self._names
