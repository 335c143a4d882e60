# SPDX-License-Identifier: Apache-2.0
"""Swap shoal into the standard modules of this process and its children.

Who may call it: `shoal.install()` from any thread; the start-up file `shoal_boot.pth` in every
interpreter that has SHOAL_RUN=1; the preparation data of spawn and forkserver children.
Under SHOAL_RUN the start-up file only puts a finder of its own, `ShoalBoot`, on `sys.meta_path`; it
calls `install()` when the program imports `multiprocessing` or `concurrent.futures.process`, so an
interpreter that does not pays microseconds. `install()` never imports a stock module itself.

How. Only `__new__` of the two *stock classes* is replaced, so names that were imported long before
see it too, and class identity, pickling by reference and `isinstance` stay what they were:

1. `Pool(...)` of exactly the stock class makes shoal's subclass of it.
2. A subclass of the stock class (ThreadPool, joblib's MemmappingPool, the user's) stays stock.
3. A context that is not the standard library's own (a mock, another package's) stays stock.

A fork inherits the swap. `multiprocessing.spawn.get_preparation_data` carries it to children that
start from a fresh interpreter, before they import the program's main module.

Module state: `_active` (written by install and uninstall), `_patched` (classes that have our
`__new__`; it stays on them after uninstall, as CPython cannot restore a type's slot, and then does
what the stock class does).
Design: docs/design/drop_in.md
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

    Patch = Callable[[ModuleType], None]

_active = False
_patched: set[type] = set()

# Runs in a child while it unpickles its preparation data: `sys.path` is not the parent's yet.
_CHILD = """
import sys
try:
    from shoal import _install
except ImportError:
    sys.path.append({folder!r})
    try:
        from shoal import _install
    finally:
        sys.path.remove({folder!r})
_install.install()
"""


def install() -> None:
    """Give shoal's Pool and ProcessPoolExecutor to this process and its children.

    `multiprocessing.Pool`, the `Pool` of every context, `multiprocessing.pool.Pool` and
    `concurrent.futures.ProcessPoolExecutor` then make shoal's, under the names by which the
    program knows them. Calling it again changes nothing.

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
    _replace_finders([_watcher])
    for name, patch in _PATCHES.items():
        module = sys.modules.get(name)
        if module is not None:
            patch(module)
    if "SHOAL_EXPLAIN" in _environment():
        from shoal import _explain

        _explain.report_at_exit()


def uninstall() -> None:
    """Make new pools and executors the standard library's again. Existing ones live on."""
    global _active
    _active = False
    _replace_finders([])


def is_installed() -> bool:
    """Whether `install()` is in force in this process."""
    return _active


def _replace_finders(first: list[Any]) -> None:
    """Put `first` before all finders, in the place of ours. An import may be reading the list."""
    ours = [_watcher, *(f for f in sys.meta_path if getattr(f, "__name__", "") == "ShoalBoot")]
    sys.meta_path = first + [finder for finder in sys.meta_path if finder not in ours]


def _environment() -> Any:
    import os

    return os.environ


def _patch_pool(module: ModuleType) -> None:
    def drop_in() -> type:
        from shoal._dropin import DropInPool

        return DropInPool

    _patch_class(module, "Pool", drop_in, context_position=4, context_name="context")


def _patch_executor(module: ModuleType) -> None:
    def drop_in() -> type:
        from shoal._dropin import DropInExecutor

        return DropInExecutor

    name = "ProcessPoolExecutor"
    _patch_class(module, name, drop_in, context_position=1, context_name="mp_context")


def _patch_class(
    module: ModuleType,
    name: str,
    drop_in: Callable[[], type],
    context_position: int,
    context_name: str,
) -> None:
    """Let the class `name` make `drop_in()` instances; its subclasses are not touched."""
    stock: type | None = getattr(module, name, None)
    if stock is None or stock in _patched:  # None: the module is being imported right now
        return
    _patched.add(stock)

    def __new__(cls: type, /, *args: Any, **kwargs: Any) -> Any:
        if cls is stock and _active:
            context = args[context_position] if len(args) > context_position else None
            if _is_stock_context(kwargs.get(context_name, context)):
                chosen = drop_in()
                _record("swapped", stock, "")
                return chosen.__new__(chosen, *args, **kwargs)
            _record("left", stock, "its context is not the standard library's own")
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


def _is_stock_context(context: Any) -> bool:
    """None, the module, or a context of the standard library (or our own subclass of one)."""
    if context is None or context is sys.modules.get("multiprocessing"):
        return True
    home = type(context).__module__
    return home in ("multiprocessing.context", "shoal.multiprocessing")


def _patch_spawn(module: ModuleType) -> None:
    """Let the data that a fresh child reads first carry the swap."""
    stock = module.get_preparation_data
    if getattr(stock, "_shoal", False):
        return

    def get_preparation_data(name: str) -> dict[str, Any]:
        data: dict[str, Any] = stock(name)
        return {"shoal": _InChild(), **data} if _active else data

    get_preparation_data._shoal = True  # type: ignore[attr-defined]
    get_preparation_data.__wrapped__ = stock  # type: ignore[attr-defined]
    module.get_preparation_data = get_preparation_data  # type: ignore[attr-defined]


class _InChild:
    """Pickles as the code that installs shoal where it is unpickled; needs nothing importable."""

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        return exec, (_CHILD.format(folder=folder), {})


_PATCHES: dict[str, Patch] = {
    "multiprocessing.pool": _patch_pool,
    "multiprocessing.spawn": _patch_spawn,
    "concurrent.futures.process": _patch_executor,
}


class _Watcher:
    """A meta path finder that finds nothing itself, but patches the stock modules once loaded."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        patch = _PATCHES.get(name)
        if patch is None:
            return None
        for finder in sys.meta_path:
            if finder is not self and hasattr(finder, "find_spec"):
                spec = finder.find_spec(name, path, target)
                if spec is not None:
                    loader: Any = spec.loader
                    if loader is not None:
                        spec.loader = _PatchingLoader(loader, patch)  # type: ignore[assignment]
                    return spec
        return None


class _PatchingLoader:
    """The module's own loader, with the patch applied as the module's last statement."""

    def __init__(self, loader: Any, patch: Patch) -> None:
        self._loader = loader
        self._patch = patch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._patch(module)


def _record(verdict: str, cls: type, why: str) -> None:
    explain = sys.modules.get("shoal._explain")
    if explain is not None:
        explain.record(verdict, f"{cls.__module__}.{cls.__qualname__}", why)


_watcher: Any = _Watcher()
