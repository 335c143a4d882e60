# SPDX-License-Identifier: Apache-2.0
"""Swap shoal into the standard modules of this process and its children.

Callers of `install()`: users, from any thread; the start-up file `shoal_boot.pth` in every
interpreter that has SHOAL_RUN=1; the preparation data of spawn and forkserver children. Under
SHOAL_RUN the start-up file only puts a finder, `ShoalBoot`, on `sys.meta_path`. The finder calls
`install()` when the program imports `multiprocessing` or `concurrent.futures.process`, so an
interpreter that imports neither loses only microseconds. `install()` never imports a stock module
itself.

Only `__new__` of the *stock classes* in the table in `_swaps.py` is replaced. So the swap also
affects names that were imported long before, and class identity, pickling by reference and
`isinstance` do not change:

1. `Pool(...)` of exactly the stock class makes shoal's subclass of it. `multiprocessing.Pool(...)`
   does so without importing the stock class (`_dropin/_stock_classes.py`).
2. A subclass of the stock class (ThreadPool, joblib's MemmappingPool, the user's) stays stock.
3. With a context that is not the standard library's own (a mock, another package's), the object
   stays stock.

A fork inherits the swap. Children that start from a fresh interpreter install shoal before they
import the program's main module (`_runtime/_children.py`).

Module state: `_active` (written by install and uninstall), `_patched` (classes that have shoal's
`__new__`; CPython cannot restore a type's slot, so this `__new__` stays after `uninstall`, and then
behaves like the stock one).
Design: docs/design/drop_in.md
"""

from __future__ import annotations

import functools
import sys

from shoal._install import _swaps
from shoal._runtime import _import_hook, _leftovers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

    Patch = Callable[[ModuleType], None]

_active = False
_patched: set[type] = set()


def install() -> None:
    """Replace the standard library's classes by shoal's, in this process and its children.

    Afterwards `multiprocessing.Pool`, the `Pool` of every context, `multiprocessing.pool.Pool`, and
    so on for every class that shoal has, make shoal's objects. The names that the program uses stay
    the same. Calling it again changes nothing.

    >>> import shoal
    >>> shoal.install()
    >>> import multiprocessing.pool
    >>> with multiprocessing.Pool(1) as pool:
    ...     isinstance(pool, shoal.Pool), isinstance(pool, multiprocessing.pool.Pool)
    (True, True)
    >>> shoal.uninstall()
    """
    global _active
    _active = True
    _leftovers.remove_once()
    _replace_finders([_watcher])
    for name, patch in _PATCHES.items():
        module = sys.modules.get(name)
        if module is not None:
            patch(module)
    if "SHOAL_EXPLAIN" in _environment():
        from shoal._install import _explain

        _explain.report_at_exit()


def uninstall() -> None:
    """Make new pools and executors the standard library's again. Existing objects are not affected.

    This works under `shoal run` too. Children that are started afterwards do not install shoal.
    """
    global _active
    _active = False
    _replace_finders([])


def is_installed() -> bool:
    """Whether shoal is installed in this process."""
    return _active


# The same as `_runtime/_public.py` does. That module is not imported here, because every program
# under `shoal run` loads this module at its start.
install.__module__ = uninstall.__module__ = is_installed.__module__ = "shoal"


def _replace_finders(first: list[Any]) -> None:
    """Remove shoal's finders, and put `first` before all others. Makes a new list, because another
    thread's import may be iterating over the old one.
    """
    ours = [_watcher, *(f for f in sys.meta_path if getattr(f, "__name__", "") == "ShoalBoot")]
    sys.meta_path = first + [finder for finder in sys.meta_path if finder not in ours]


def _environment() -> Any:
    import os

    return os.environ


def _patch_classes(module: ModuleType) -> None:
    for swap in _swaps.SWAPS:
        if swap.module == module.__name__:
            _patch_class(module, swap)
    for home_module, name, home in _swaps.FUNCTIONS:
        if home_module == module.__name__:
            _patch_function(module, name, home)


def _patch_function(module: ModuleType, name: str, home: str) -> None:
    """Let a function of a stock module call shoal's while shoal is installed."""
    stock: Any = getattr(module, name, None)
    if stock is None or hasattr(stock, "_shoal"):
        return

    @functools.wraps(stock)
    def function(*args: Any, **kwargs: Any) -> Any:
        if not _active:
            return stock(*args, **kwargs)
        if not name.startswith("_"):
            _record("swapped", stock, "")
        return _swaps.load(home)(*args, **kwargs)

    function._shoal = True  # type: ignore[attr-defined]
    setattr(module, name, function)


def _patch_class(module: ModuleType, swap: _swaps.Swap) -> None:
    """Let a stock class make shoal's instances; its subclasses are not touched."""
    stock: type | None = getattr(module, swap.name, None)
    if stock is None or stock in _patched:  # None: the module is being imported right now
        return
    _patched.add(stock)

    def __new__(cls: type, /, *args: Any, **kwargs: Any) -> Any:
        if cls is stock and _active:
            chosen, why_not = _choose(swap, args, kwargs)
            _record("left" if why_not else "swapped", stock, why_not)
            if not why_not:
                return chosen.__new__(chosen, *args, **kwargs)
        elif _active and not cls.__module__.startswith("shoal."):
            _record("left", cls, f"a subclass of {stock.__module__}.{stock.__name__}")
        following = super(stock, cls).__new__  # type: ignore[arg-type]
        if following is object.__new__:
            return following(cls)
        return following(cls, *args, **kwargs)

    # `inspect.signature(Pool)` looks at `__new__` first and follows `__wrapped__`.
    __new__.__wrapped__ = stock.__init__  # type: ignore[attr-defined,misc]
    __new__.__qualname__ = f"{stock.__qualname__}.__new__"
    stock.__new__ = staticmethod(__new__)  # type: ignore[method-assign]


def _patch_context(module: ModuleType) -> None:
    """Let a context's `Pool()`, `Queue()`, `Lock()`... make shoal's without importing the stock
    class.
    """
    for swap in _swaps.SWAPS:
        if swap.module in _swaps.BY_CONTEXT:
            _patch_maker(module.BaseContext, swap)


def _patch_maker(context: type, swap: _swaps.Swap) -> None:
    stock: Any = getattr(context, swap.name)
    code = getattr(stock, "__code__", None)
    if code is None or hasattr(stock, "_shoal"):
        return
    names = code.co_varnames[1 : code.co_argcount]
    required = len(names) - len(stock.__defaults__ or ())

    @functools.wraps(stock)
    def make(self: Any, *args: Any, **kwargs: Any) -> Any:
        # A call that does not fit the stock signature goes to the stock method, which raises.
        fits = len(args) <= len(names) and kwargs.keys() <= set(names)
        fits = fits and kwargs.keys() >= set(names[len(args) : required])
        if fits and _active and swap.module not in sys.modules and _is_stock_context(self):
            with_context = {**kwargs, swap.context: self.get_context()}
            chosen, why_not = _choose(swap, args, with_context)
            if not why_not:
                _record_swap("swapped", f"{swap.module}.{swap.name}", "")
                return chosen(*args, **with_context)
        return stock(self, *args, **kwargs)

    make._shoal = True  # type: ignore[attr-defined]
    setattr(context, swap.name, make)


def _choose(swap: _swaps.Swap, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, str]:
    """Shoal's class, and why the call is left to the stock class anyway ("" if it is not)."""
    if not _is_stock_context(swap.context_of(args, kwargs)):
        return None, "its context is not the standard library's own"
    if swap.home == _swaps.POOL:
        _start_fork_server(swap.context_of(args, kwargs))
    chosen: Any = swap.load()
    left = getattr(chosen, "_left", None)
    return chosen, left(*args, **kwargs) if left is not None else ""


def _start_fork_server(context: Any) -> None:
    """Start the fork server if a pool of this context needs it, before shoal's imports."""
    context = context or sys.modules["multiprocessing"]
    if context.get_start_method() == "forkserver":
        from shoal._runtime import _children

        _children.start_fork_server()


def _is_stock_context(context: Any) -> bool:
    """Whether `context` is None, the module `multiprocessing`, or a context of the standard library
    or of shoal.
    """
    if context is None or context is sys.modules.get("multiprocessing"):
        return True
    home = type(context).__module__
    return home in ("multiprocessing.context", "shoal.multiprocessing")


def _patch_spawn(module: ModuleType) -> None:
    """Let children that start from a fresh interpreter install shoal as well."""
    from shoal._runtime import _children

    _children.carry_swap(_entrance)
    _children.patch_spawn(module)


def _entrance() -> str:
    return f"{__name__}:install" if _active else ""


def _warm_fork_server(module: ModuleType) -> None:
    from shoal._runtime import _fork_server

    _fork_server.patch(module)


def _adapt(home: str) -> Patch:
    def patch(module: ModuleType) -> None:
        try:
            serve = _swaps.load(home)
        except ImportError:  # this Python lacks a module that the other package needs
            return
        serve(module)

    return patch


def _patches() -> dict[str, Patch]:
    found: dict[str, Patch] = {swap.module: _patch_classes for swap in _swaps.SWAPS}
    found.update((module, _patch_classes) for module, _, _ in _swaps.FUNCTIONS)
    found["multiprocessing.context"] = _patch_context
    found["multiprocessing.spawn"] = _patch_spawn
    found["multiprocessing.forkserver"] = _warm_fork_server
    found.update((module, _adapt(home)) for module, home in _swaps.ADAPTERS)
    return found


_PATCHES = _patches()


def _record(verdict: str, cls: Any, why: str) -> None:
    _record_swap(verdict, f"{cls.__module__}.{cls.__qualname__}", why)


def _record_swap(verdict: str, name: str, why: str) -> None:
    explain = sys.modules.get("shoal._install._explain")
    if explain is not None:
        explain.record(verdict, name, why)


_watcher: Any = _import_hook.Watcher(_PATCHES)
