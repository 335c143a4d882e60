# SPDX-License-Identifier: Apache-2.0
"""The worker's side of definitions: it applies the entries of the parent's log in order.

1. After `apply(entry)`, the names of the entry are bound in this process's modules, except names
   that this process has rebound itself: a worker keeps its own globals.
2. An entry never fails as a whole. A definition that could not be sent or rebuilt is recorded in
   `missing`, and `explain` adds the reason to a NameError that shows that it was needed.

One object per process. Thread safety: one thread applies entries, between tasks.

Module state: `current`, written when an `Applied` is made.
"""

from __future__ import annotations

import sys
from types import FunctionType, ModuleType

from shoal._pickling import _names, _rebuild

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

current: Applied | None = None


def make_main(facts: dict[str, Any] | None = None) -> ModuleType:
    """Give this process a real, empty `__main__`, which a worker of a clean template needs."""
    main = ModuleType(_names.MAIN)
    vars(main).update({"__builtins__": sys.modules["builtins"], **(facts or {})})
    sys.modules[_names.MAIN] = sys.modules["__mp_main__"] = main
    return main


def _globals_of_functions(module: ModuleType) -> dict[str, Any] | None:
    """The globals of a function that the module defines; None if it defines none."""
    found = list(vars(module).values())
    for value in found:
        if isinstance(value, type) and value.__module__ == module.__name__:
            found.extend(vars(value).values())
        elif isinstance(value, FunctionType):
            variables = value.__globals__
            # Skip a function whose globals belong to another module, which has wrapped it.
            if variables.get("__name__") == module.__name__:
                return variables
    return None


class Applied:
    """The parent's definitions that this worker has.

    With `forked`, this process is a fork of the parent, and the present contents of its main module
    came from the parent, which may send them again. With `imported`, this process has run the main
    module itself, and keeps its contents: the parent only adds to them.
    """

    def __init__(self, forked: bool = False, imported: bool = False) -> None:
        global current
        current = self
        self.length = 0
        self.missing: dict[str, str] = {}
        self._bound: dict[_names.Key, Any] = {}
        if imported:
            _rebuild.main_globals = _globals_of_functions(sys.modules[_names.MAIN])
        if forked:
            _names.inherited = _names.present_modules()
            main = vars(sys.modules[_names.MAIN])
            self._bound = {(_names.MAIN, name): value for name, value in main.items()}

    def end(self) -> None:
        """The worker's tasks are over."""
        global current
        current = _rebuild.main_globals = None
        self._bound.clear()

    def apply(self, entry: bytes) -> None:
        """Apply the next entry of the log."""
        self.length += 1
        if not entry:
            return
        from shoal._pickling import _load_graph  # not before the first entry: most pools have none

        with _load_graph.Loader(entry) as loader:
            for name, facts in loader.modules.items():
                self._prepare(name, facts)
            self.missing.update(loader.failures)
            loader.create(self._failed, self._bind)
            loader.fill_from(0, self._failed, self._bind)

    def _prepare(self, name: str, facts: dict[str, Any]) -> None:
        module = sys.modules.get(name)
        if module is None:
            module = sys.modules[name] = ModuleType(name)
            vars(module)["__builtins__"] = sys.modules["builtins"]
        if name != _names.MAIN:
            _names.received.add(name)
        for attribute, value in facts.items():
            if getattr(module, attribute, None) is None:
                setattr(module, attribute, value)

    def _bind(self, module_name: str, name: str, value: Any) -> None:
        variables = vars(sys.modules[module_name])
        key = (module_name, name)
        present = variables.get(name, _names.ABSENT)
        if present is not _names.ABSENT and present is not self._bound.get(key, _names.ABSENT):
            self._bound.pop(key, None)  # the worker's own from now on
            return
        variables[name] = self._bound[key] = value
        # For an imported main module, the dictionary of its functions is a different one.
        _rebuild.module_dict(module_name)[name] = value
        self.missing.pop(name, None)

    def _failed(self, what: str, error: BaseException) -> None:
        self.missing[what] = f"{type(error).__name__}: {error}"

    def explain(self, error: BaseException) -> str | None:
        """Why the name that `error` reports as missing is not here; None if definitions are not the
        reason.
        """
        if not isinstance(error, (NameError, AttributeError)):
            return None
        reason = self.missing.get(error.name or "")
        if reason is None:
            return None
        return (
            f"{error.name!r} is in the parent process, but could not be sent to this worker: "
            f"{reason}. Make it in the pool's initializer, or pass what it is made from"
        )
