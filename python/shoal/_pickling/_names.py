# SPDX-License-Identifier: Apache-2.0
"""Names of objects: which names a function's code uses, and what another process finds by name.

A *key* is (module name, top-level name): the unit in which definitions are sent. `__mp_main__` is
multiprocessing's second name of the main module, so keys always say `__main__`.

Module state: `received` and `inherited` (the modules that came from the parent, which therefore has
them; the worker's `Applied` writes these), `_importable` (a cache: module name -> answer, for one
module object), `_present` (what `present_modules` returned last).
"""

from __future__ import annotations

import builtins
import enum
import functools
import sys
import weakref
from collections.abc import Callable, Iterator
from types import CellType, CodeType, ModuleType

from shoal._runtime._native import core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final, Protocol

    class Baseline(Protocol):
        """What `place` asks of a pool's definitions."""

        def workers_have_module(self, module_name: str) -> bool: ...


MAIN: Final = "__main__"
Key = tuple[str, str]

received: set[str] = set()
inherited: frozenset[str] = frozenset()
_present: frozenset[str] = frozenset()
_importable: dict[str, tuple[int, bool]] = {}
# The modules that every process of a session can import.
_STANDARD: Final = frozenset({*sys.stdlib_module_names, *sys.builtin_module_names, "shoal"})


class _Absent:
    """The type of ABSENT, which stands for the value of an unbound name. None is a value."""

    def __repr__(self) -> str:
        return "<absent>"


ABSENT: Final[Any] = _Absent()


def cell_content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return ABSENT


class IdentityMap:
    """Maps objects to values by identity, without keeping the objects alive: an entry is removed
    when its object is collected.

    Faster than WeakKeyDictionary, and never calls a user's `__hash__` or `__eq__`. An object that
    cannot be weakly referenced is kept for ever (built-in descriptors, which never die anyway).
    """

    __slots__ = ("_entries", "_gone")

    def __init__(self, gone: Callable[[Any], None] | None = None) -> None:
        self._entries: dict[int, tuple[Any, Any]] = {}
        self._gone = gone

    def get(self, obj: object) -> Any:
        entry = self._entries.get(id(obj))
        return None if entry is None else entry[1]

    def set(self, obj: object, value: Any) -> None:
        key, entries, gone = id(obj), self._entries, self._gone

        def collected(reference: Any) -> None:
            entry = entries.get(key)
            # Another object may have got the id before this callback ran; then the entry is its.
            if entry is not None and entry[0] is reference:
                del entries[key]
                if gone is not None:
                    gone(value)

        try:
            holder: Any = weakref.ref(obj, collected)
        except TypeError:
            holder = obj
        entries[key] = (holder, value)

    def discard(self, obj: object) -> None:
        self._entries.pop(id(obj), None)

    def clear(self) -> None:
        self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)


def canonical(module_name: str) -> str:
    """The module's name as it is used in keys."""
    if module_name == "__mp_main__" and sys.modules.get(module_name) is sys.modules.get(MAIN):
        return MAIN
    return module_name


def locate(obj: Any) -> tuple[str, str] | None:
    """(module, qualified name) under which this process finds `obj` itself, or None."""
    name = getattr(obj, "__qualname__", None) or getattr(obj, "__name__", None)
    module_name = getattr(obj, "__module__", None)
    if not isinstance(name, str) or not isinstance(module_name, str) or "<" in name:
        return None
    found: Any = sys.modules.get(module_name)
    for part in name.split("."):
        found = getattr(found, part, ABSENT)
    return (canonical(module_name), name) if found is obj else None


def key_of(located: tuple[str, str]) -> Key:
    return located[0], located[1].partition(".")[0]


def _found_by_finders(module_name: str, module: ModuleType) -> bool | None:
    """Whether the finders find the module. None: not found, but a finder raised, which may be due
    to a signal handler.
    """
    parent = module_name.rpartition(".")[0]
    path = getattr(sys.modules.get(parent), "__path__", None) if parent else None
    origin = getattr(getattr(module, "__spec__", None), "origin", None)
    origin = origin or getattr(module, "__file__", None)
    missing: bool | None = False
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(module_name, path, None)
        except Exception:
            missing = None  # this finder failed; the next one may find the module
            continue
        if spec is not None:
            return origin is None or spec.origin is None or spec.origin == origin
    return missing


def importable(module_name: str) -> bool:
    """Whether a fresh process with our sys.path can import this module.

    For a submodule the answer is that of its top package, because packages may make modules in
    their own ways.
    """
    root = module_name.partition(".")[0]
    if root in _STANDARD:
        return True
    module = sys.modules.get(root)
    if module is None:
        return False
    known = _importable.get(root)
    if known is None or known[0] != id(module):
        found = _found_by_finders(root, module)
        if found is None:
            return False  # not cached
        known = _importable[root] = (id(module), found)
    return known[1] and not _registered_by_value(module_name)


def _registered_by_value(module_name: str) -> bool:
    cloudpickle = sys.modules.get("cloudpickle")
    if cloudpickle is None:
        return False
    registry: Any = getattr(cloudpickle, "list_registry_pickle_by_value", dict)()
    while module_name:
        if module_name in registry:
            return True
        module_name = module_name.rpartition(".")[0]
    return False


def nested_codes(code: CodeType) -> Iterator[CodeType]:
    """`code` and every code object inside it."""
    stack = [code]
    while stack:
        current = stack.pop()
        yield current
        stack.extend(c for c in current.co_consts if isinstance(c, CodeType))


# By how many bits the argument is shifted: from 3.11 on LOAD_GLOBAL's lowest bit is not part of the
# name's index.
_LOADS_GLOBAL: Final = {
    "LOAD_GLOBAL": 1 if sys.version_info >= (3, 11) else 0,
    "LOAD_NAME": 0,
    "LOAD_FROM_DICT_OR_GLOBALS": 0,
}


@functools.lru_cache(maxsize=4096)
def global_names(code: CodeType) -> tuple[str, ...]:
    """The global names that `code` reads, including its nested code, in order of first use."""
    opmap = core.opcodes()  # the module `opcode` has them too, but takes long to import
    shifts = {opmap[name]: shift for name, shift in _LOADS_GLOBAL.items() if name in opmap}
    extended = opmap["EXTENDED_ARG"]
    names: dict[str, None] = {}
    for part in nested_codes(code):
        if not part.co_names:
            continue
        units = part.co_code  # (operation, argument) pairs; inline caches are zeros
        high = 0
        for operation, low in zip(units[::2], units[1::2]):
            argument = high | low
            high = argument << 8 if operation == extended else 0
            if operation in shifts:
                names[part.co_names[argument >> shifts[operation]]] = None
    return tuple(names)


def used_names(code: CodeType, namespace: dict[str, Any]) -> list[str]:
    """The global names that `code` reads: those in `namespace`, and those still unbound."""
    return [n for n in global_names(code) if n in namespace or not hasattr(builtins, n)]


def used_submodules(module: ModuleType, codes: list[CodeType]) -> list[str]:
    """Imported submodules of a package that code reaches by attributes (`xml.dom.minidom`)."""
    if not hasattr(module, "__path__"):
        return []
    mentioned = {name for code in codes for part in nested_codes(code) for name in part.co_names}
    prefix = module.__name__ + "."
    return [
        name
        for name in list(sys.modules)
        if name.startswith(prefix) and mentioned.issuperset(name[len(prefix) :].split("."))
    ]


def present_modules() -> frozenset[str]:
    """The names in `sys.modules`. If no module was imported since the last call, the same set is
    returned again. Building a new one writes the reference count of every name, and in a process
    that shares its memory with a forked child, such a write copies a page.
    """
    global _present
    modules = sys.modules
    if len(modules) != len(_present) or next(reversed(modules)) not in _present:
        _present = frozenset(modules)
    return _present


class Place(enum.Enum):
    """How another process gets a module's names."""

    THERE = enum.auto()  # it imports the module, or has it already
    SHIPPED = enum.auto()  # the definitions of a pool send them
    NOWHERE = enum.auto()  # it cannot get them: the module's objects are sent by value


def place(module_name: str, definitions: Baseline | None) -> Place:
    """How another process gets the names of this module. Without definitions (in a worker, for a
    result) the other process is the parent, which has `__main__` already.
    """
    if definitions is None and (
        module_name == MAIN or module_name in received or module_name in inherited
    ):
        return Place.THERE
    if module_name == MAIN:
        return Place.SHIPPED
    if importable(module_name):
        return Place.THERE
    if definitions is None:
        return Place.NOWHERE
    return Place.THERE if definitions.workers_have_module(module_name) else Place.SHIPPED


_ATOMS: Final = frozenset(
    {type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented), range}
)


def is_atom(value: Any, depth: int = 3) -> bool:
    """Whether `value` consists only of immutable built-in values, and so refers to nothing else."""
    kind = type(value)
    if kind in _ATOMS:
        return True
    if depth and (kind is tuple or kind is frozenset):
        return all(is_atom(item, depth - 1) for item in value)
    return False
