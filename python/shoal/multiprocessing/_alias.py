# SPDX-License-Identifier: Apache-2.0
"""Makes the standard library's submodules available as submodules of the drop-in namespace.

`import shoal.multiprocessing.reduction` returns the module `multiprocessing.reduction` itself, so
its classes exist once. A submodule that has a file here (pool, for example) is found by the
ordinary import system first.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_STOCK = "multiprocessing"


class _AliasFinder:
    """Finds `PACKAGE.x` if the standard library has `multiprocessing.x`."""

    def __init__(self, package: str) -> None:
        self._prefix = package + "."

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not name.startswith(self._prefix):
            return None
        import importlib.util

        stock = f"{_STOCK}.{name[len(self._prefix) :]}"
        if importlib.util.find_spec(stock) is None:
            return None
        loader: Any = _AliasLoader(stock)
        return ModuleSpec(name, loader)


class _AliasLoader:
    """Replaces the module being imported by the standard library's."""

    def __init__(self, stock: str) -> None:
        self._stock = stock

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        sys.modules[module.__name__] = importlib.import_module(self._stock)


def serve(package: str) -> None:
    """Find submodules of `package` that no other finder finds."""
    sys.meta_path.append(_AliasFinder(package))


def own(package: str, name: str) -> ModuleType:
    """The package's submodule of that name. If the name is no submodule (`sys`), the object that
    the stock package has under it.
    """
    if f"{_STOCK}.{name}" in sys.modules:
        return importlib.import_module(f"{package}.{name}")
    found: ModuleType = getattr(sys.modules[_STOCK], name)
    return found


def rest_of(stock: ModuleType) -> Callable[[str], Any]:
    """A module's `__getattr__`, which looks up missing names in `stock`."""

    def __getattr__(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {stock.__name__!r} of shoal has no attribute {name!r}")
        return getattr(stock, name)

    return __getattr__
