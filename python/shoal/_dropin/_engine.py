# SPDX-License-Identifier: Apache-2.0
"""The engine of the drop-in's pools: workers are processes of the standard library's contexts
(`_processes.py`, `_keeper.py`).

1. fork forks the caller whatever threads it has, with CPython's own warning.
2. What only inheritance may carry (locks, queues, connections) can stand in `initargs`. Workers
   that come from a copy of this process find the very objects; for fresh interpreters they are
   pickled as for a process being spawned, and a descriptor travels as its place in this process.
3. Fresh interpreters run a main module that has a guard as `__mp_main__`, as there. One without a
   guard would start the program again, and there ends in an error; here its functions are sent.
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

# Of `get_preparation_data()`.
_CARRIED = ("log_to_stderr", "log_level", "orig_dir", "start_method")
_tokens = itertools.count()

PREFIXES = {"fork": "Fork", "spawn": "Spawn", "forkserver": "ForkServer"}  # of workers' names

Context = multiprocessing.context.BaseContext | ModuleType | None


def concrete_context(context: Context) -> multiprocessing.context.BaseContext:
    """The context itself; for none, or the module `multiprocessing`, the default one."""
    if context is None or isinstance(context, ModuleType):
        return multiprocessing.get_context()
    return context.get_context()


class DropInEngine(_engine.Engine):
    """An engine with the start method, and the initializer's rights, of a context."""

    results_by_name = True
    chunks_are_tasks = True
    reads_unfetched = True  # the standard library's pool reads all inputs at once

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
            # A main module that is just being imported in a child must not make pools: a fork bomb.
            from multiprocessing import spawn

            spawn._check_not_importing_main()  # type: ignore[attr-defined]
        if method == "forkserver":
            from shoal._runtime import _children

            _children.start_fork_server()
        # What workers have of the main module by its import; None: they do not import it.
        self._main_names = None
        if method != "fork":
            from shoal._workers import _main_module

            self._main_names = _main_module.names_after_import()
        self._descriptors: list[int] = []
        weakref.finalize(self, _startup.close_all, self._descriptors).atexit = False
        self.start_method = method
        self.results: weakref.WeakSet[Any] = weakref.WeakSet()  # of maps, while somebody has them
        self.pool: Callable[[], Any] = _no_pool  # gives the Pool, if it is one's and still there
        start = _engine.START_OF_METHOD[method]
        super().__init__(workers, initializer, initargs, tasks_per_worker, start, name)

    def _make_agent(self) -> Any:
        """Without a main module to import, workers of forkserver come from an agent that is a copy
        of this process: what is defined in a notebook is there.
        """
        if self.start_method == "forkserver" and self._main_names is None:
            return super()._make_agent()
        return _keeper.Keeper()

    def preparation(self) -> dict[str, Any]:
        """What the standard library tells its processes; for workers of an agent."""
        from multiprocessing import spawn

        data = spawn.get_preparation_data(self.name)
        return {key: data[key] for key in _CARRIED if key in data}

    def worker_context(self) -> dict[str, Any]:
        """What a worker of the keeper does not hear from the standard library: see `_context`."""
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
        """Called once the template is decided: does a worker inherit this process's memory?"""
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
        _pickler._look_at_registrations()  # of what is shared by inheritance, such as Values
        _context_module.set_spawning_popen(_startup.Spawning(self._descriptors))
        try:
            super().store_startup()
        finally:
            _context_module.set_spawning_popen(None)


def _no_pool() -> None:
    return None


class _MainOfFork(_definitions.ForkedMain):
    """A fork's globals are those of the fork: what is rebound later stays what it was there.

    Functions and classes that are defined anew still travel: tasks name them.
    """

    def holds(self, key: tuple[str, str], value: Any) -> bool:
        if super().holds(key, value):
            return True
        is_definition = isinstance(value, (FunctionType, type))
        return not is_definition and key[0] == _names.MAIN and key[1] in self._names
