# SPDX-License-Identifier: Apache-2.0
"""Implements the import statements in shoal's modules, so that a user's file named like a module of
the standard library does not affect shoal.

A program's folder is first in `sys.path`. So a file `token.py` or `queue.py` beside the program
replaces the standard library's module of that name, for all code in the process. If shoal imported
the file, functions that shoal calls would be missing, and a file that the program may never import
would be executed.

Each module of shoal is executed with its own `__builtins__`, whose `__import__` is
`import_for_shoal`. It decides for each import statement in shoal, at the top of a module or inside
a function:

1. A name of the standard library, or `cloudpickle`: shoal gets the installed module, never a file
   of the program's folder. If the program has imported a file of its own under that name, or would
   get one by importing it, shoal keeps a second module for itself, which is not in `sys.modules`.
2. The program is not affected: `sys.modules` keeps the modules that the program has imported. If an
   import by the program would find its own file, shoal leaves no other module under that name.
3. Any other name (numpy, joblib, a module of the program) is imported in the ordinary way.

A known gap: while a second module is imported for shoal, the program's module of that name is
missing from `sys.modules`. If another thread of the program imports the name at that moment, it
gets the standard library's module.

This file itself may import only built-in and frozen modules, which no file can replace.
Module state, guarded by `_lock`: `_known`, modules in `sys.modules` that were found to be the
installed ones; `_own`, the second modules that only shoal has.
Design: docs/design/drop_in.md
"""

from __future__ import annotations

import _frozen_importlib
import _frozen_importlib_external as _files
import _thread
import builtins
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

_import: Callable[..., Any] = builtins.__import__
_bootstrap: Any = _frozen_importlib
import_module: Callable[[str], Any] = _bootstrap._gcd_import  # as importlib.import_module
_FOLDER: str = __file__.rpartition("/")[0].rpartition("/")[0]  # the folder of the package shoal
_STANDARD_FOLDER: str = (getattr(sys.modules.get("os"), "__file__", None) or "").rpartition("/")[0]
_STANDARD_FOLDERS = (
    _STANDARD_FOLDER,
    f"{_STANDARD_FOLDER}/lib-dynload",
    f"{sys.base_exec_prefix}/{sys.platlibdir}/{_STANDARD_FOLDER.rpartition('/')[2]}/lib-dynload",
)
_NAMES = frozenset({*sys.stdlib_module_names, "cloudpickle"})  # the names that rule 1 covers
_SUFFIXES: tuple[str, ...] = (".py", ".pyc", *sys.modules["_imp"].extension_suffixes())

_PACKAGES = (
    "_dropin",
    "_install",
    "_pickling",
    "_pool",
    "_runtime",
    "_shared",
    "_workers",
    "adapters",
    "cli",
    "multiprocessing",
)

_lock = _thread.RLock()
_known: dict[str, Any] = {}
_own: dict[str, Any] = {}


def import_for_shoal(
    name: str,
    globals: Mapping[str, Any] | None = None,
    locals: Mapping[str, Any] | None = None,
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> Any:
    """Every import statement in a module of shoal calls this function."""
    # C code calls it too (PyImport_Import, which pickle uses to find a class of the program).
    # It passes `fromlist` as a list, an import statement as a tuple or None. Calls with a
    # list follow rule 3.
    if level == 0 and type(fromlist) is not list:
        top = name.partition(".")[0]
        if top in _NAMES and not _is_there(name, fromlist or ()):
            return _import_standard(name, top, fromlist or ())
    return _import(name, globals, locals, fromlist, level)


def _is_there(name: str, fromlist: Iterable[str]) -> bool:
    """Whether `sys.modules` still has the installed module, with all names of `fromlist`."""
    module = _known.get(name)
    if module is None or sys.modules.get(name) is not module:
        return False
    return all(hasattr(module, item) for item in fromlist)


def _import_standard(name: str, top: str, fromlist: Sequence[str]) -> Any:
    if not _STANDARD_FOLDER or getattr(sys, "frozen", False):
        return _import(name, None, None, fromlist, 0)  # frozen: no module comes from a file
    with _lock:
        present = sys.modules.get(name)
        is_right = _is_standard(present) and _is_standard(sys.modules.get(top))
        if is_right and all(hasattr(present, item) for item in fromlist):
            _known[name] = present
            return _import(name, None, None, fromlist, 0)
        shadows = _shadows()
        if not shadows and (top not in sys.modules or _is_standard(sys.modules[top])):
            result = _import(name, None, None, fromlist, 0)
            _known[name] = sys.modules.get(name)
            return result
        return _import_apart(name, top, fromlist, shadows)


def _import_apart(name: str, top: str, fromlist: Sequence[str], shadows: frozenset[str]) -> Any:
    """Import the module, and all modules that it imports, for shoal alone, because the program has
    imported, or would import, its own files under some of these names.
    """
    own = _own.get(name)
    if own is not None and all(hasattr(own, item) for item in fromlist):
        return own if fromlist else _own.get(top, own)
    theirs = {key: module for key, module in list(sys.modules.items()) if _is_theirs(key)}
    for key in theirs:
        del sys.modules[key]
    finder = _StandardFinder(_thread.get_ident())
    had = set(sys.modules)
    try:
        sys.modules.update(_own)
        sys.meta_path.insert(0, finder)
        return _import(name, None, None, fromlist, 0)
    finally:
        sys.meta_path.remove(finder)
        hidden = {*shadows, *(key.partition(".")[0] for key in theirs)}
        for key in [key for key in sys.modules if key.partition(".")[0] in hidden]:
            if key not in had:
                _own[key] = sys.modules.pop(key)
        sys.modules.update(theirs)


def _is_theirs(key: str) -> bool:
    """Whether `sys.modules[key]` is a file of the program although rule 1 covers its name."""
    top = key.partition(".")[0]
    return top in _NAMES and not _is_standard(sys.modules.get(top))


def _is_standard(module: Any) -> bool:
    """Whether the module comes from the standard library (for cloudpickle: from a folder of
    installed packages).
    """
    spec: Any = getattr(module, "__spec__", None)
    origin = getattr(spec, "origin", None)
    if origin in ("built-in", "frozen"):
        return True
    if not isinstance(origin, str):
        return False
    if spec.name == "cloudpickle":
        return origin.rpartition("/cloudpickle/")[0] in _folders_of_packages()
    for folder in _STANDARD_FOLDERS:
        if origin.startswith(folder + "/") and "-packages/" not in origin[len(folder) :]:
            return True
    return False


def _folders_of_packages() -> list[str]:
    """The folders of installed packages: shoal's own, and those behind the standard library in
    `sys.path`.
    """
    path = [entry for entry in sys.path if isinstance(entry, str)]
    last = max((path.index(folder) for folder in _STANDARD_FOLDERS if folder in path), default=-1)
    return [_FOLDER.rpartition("/")[0], *path[last + 1 :]]


# ---- Which names the program would import from its own folders -----------------------------------

# Folder -> (its device, inode and modification time; the module names in it).
_listed: dict[str, tuple[Any, frozenset[str]]] = {}


def _shadows() -> frozenset[str]:
    """Names of the standard library that a plain import would find in the program's folders."""
    found: frozenset[str] = frozenset()
    for entry in sys.path:
        if entry in _STANDARD_FOLDERS:
            break
        if isinstance(entry, str):
            found |= _names_in(entry)
    return found


def _names_in(entry: str) -> frozenset[str]:
    folder = entry or "."
    try:
        facts = posix.stat(folder)
    except (OSError, ValueError):
        return frozenset()
    state = (facts.st_dev, facts.st_ino, facts.st_mtime_ns)
    listed = _listed.get(folder)
    if listed is None or listed[0] != state:
        listed = _listed[folder] = (state, frozenset(_list(folder)))
    return listed[1]


def _list(folder: str) -> Iterable[str]:
    try:
        entries = posix.listdir(folder)
    except NotADirectoryError:
        return _list_archive(folder)
    except OSError:
        return ()
    candidates = {name for entry in entries if (name := _module_name(entry)) in _NAMES}
    return (name for name in candidates if _takes_the_place(name, folder))


def _takes_the_place(name: str, folder: str) -> bool:
    """Whether the file or folder would be imported; a folder without `__init__.py` would not."""
    spec = _files.PathFinder.find_spec(name, [folder])
    return spec is not None and spec.origin is not None


def _module_name(entry: str) -> str:
    """The module name of a file or folder."""
    for suffix in _SUFFIXES:
        if entry.endswith(suffix):
            return entry[: -len(suffix)]
    return entry


def _list_archive(path: str) -> Iterable[str]:
    """For a program in a zip file: ask its finder for each name."""
    finder = sys.path_importer_cache.get(path)
    return (name for name in _NAMES if finder is not None and finder.find_spec(name) is not None)


class _StandardFinder:
    """Finds top modules in the standard library alone, for one thread's imports."""

    def __init__(self, thread: int) -> None:
        self._thread = thread

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is not None or name not in _NAMES or _thread.get_ident() != self._thread:
            return None
        if name == "cloudpickle":
            found: ModuleSpec | None = _files.PathFinder.find_spec(name, _folders_of_packages())
            return found
        for finder in (_bootstrap.BuiltinImporter, _bootstrap.FrozenImporter):
            found = finder.find_spec(name)
            if found is not None:
                return found
        found = _files.PathFinder.find_spec(name, list(_STANDARD_FOLDERS))
        # Modules of other operating systems: the standard library tries to import them and expects
        # this error.
        if found is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return found


# ---- Modules of shoal ----------------------------------------------------------------------------

_BUILTINS: dict[str, Any] = {**vars(builtins), "__import__": import_for_shoal}


class _Loader(_files.SourceFileLoader):
    """Executes a module of shoal with `import_for_shoal` as its `__import__`."""

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__builtins__"] = _BUILTINS
        super().exec_module(module)


def load(name: str) -> Any:
    """Import and return the module of shoal with that name."""
    _import(name)
    return sys.modules[name]


def standard(name: str) -> Any:
    """Import and return the top-level module of the standard library with that name."""
    return import_for_shoal(name)


def _watch_own_folders() -> None:
    """Make the interpreter load the modules in shoal's folders with `_Loader`."""
    kinds = (
        (_files.ExtensionFileLoader, list(sys.modules["_imp"].extension_suffixes())),
        (_Loader, _files.SOURCE_SUFFIXES),
        (_files.SourcelessFileLoader, _files.BYTECODE_SUFFIXES),
    )
    for folder in ("", *(f"/{package}" for package in _PACKAGES)):
        path = _FOLDER + folder
        sys.path_importer_cache[path] = _files.FileFinder(path, *kinds)


def _after_fork_in_child() -> None:
    global _lock
    _lock = _thread.RLock()  # a thread of the parent may have held the old one


posix.register_at_fork(after_in_child=_after_fork_in_child)
if isinstance(sys.path_importer_cache.get(_FOLDER), _files.FileFinder):  # not if in an archive
    _watch_own_folders()
