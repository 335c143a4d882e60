# SPDX-License-Identifier: Apache-2.0
"""Patches modules of other packages as soon as they are imported.

Module state: only the finders that it puts on `sys.meta_path`.
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


def patch_now_or_later(name: str, patch: Patch) -> None:
    """Call `patch(module)` for the module of that name: now, or when it is imported."""
    module = sys.modules.get(name)
    if module is not None:
        patch(module)
    else:
        sys.meta_path.insert(0, Watcher({name: patch}))


def follow(module: str, *pairs: tuple[type, str]) -> None:
    """Make each class a subclass of the class of that name in the module: now, if the module has
    been imported, otherwise when it is imported.
    """

    def adopt(imported: ModuleType) -> None:
        for cls, name in pairs:
            base: type | None = getattr(imported, name, None)
            if base is not None and base not in cls.__bases__:
                cls.__bases__ = (*cls.__bases__, base)

    patch_now_or_later(module, adopt)


class Watcher:
    """A meta path finder that finds nothing itself, but patches modules once they are loaded."""

    def __init__(self, patches: dict[str, Patch]) -> None:
        self._patches = patches
        self._asking: set[str] = set()  # names for which this watcher is asking the other finders

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        patch = self._patches.get(name)
        if patch is None or name in self._asking:  # in the latter case another watcher is asking
            return None
        self._asking.add(name)
        try:
            return self._wrapped(patch, name, path, target)
        finally:
            self._asking.discard(name)

    def _wrapped(
        self, patch: Patch, name: str, path: Sequence[str] | None, target: ModuleType | None
    ) -> ModuleSpec | None:
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
