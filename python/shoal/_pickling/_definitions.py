# SPDX-License-Identifier: Apache-2.0
"""The definitions of a pool: the functions, classes and global values of the parent's `__main__`
(and of modules that workers cannot import) which tasks need. They are sent once, not with each
task.

The parent keeps a *log* of them. An entry of the log binds names to functions, classes and values.
A worker applies the entries in order (`_applied.py`); then a task's arguments need only the names.
Each message to a worker says how many entries the worker must have applied before it decodes the
message: `length`, read right after the message was encoded.

1. The log only grows, and `entry(i)` stays the same, with one exception: an entry with nothing but
   plain values (numbers, texts and the like: `_names.is_atom`) becomes empty once all its names
   were sent again by later entries.
2. After `require(keys)`, workers that have applied the log have the present value of each name in
   `keys`, and of each name that those use in turn. Values that cannot be sent are named in the
   entry, with the reason. Names that workers have anyway (`Beforehand`) are not in the log.
3. A name is sent again when `require` finds it bound to another object than the one that was sent.
   A change inside the object is not noticed.

Thread safety: `require` takes a lock of its own; everything may be called from any thread.
Design: docs/design/definitions.md
"""

from __future__ import annotations

import sys
import weakref
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterable
from itertools import repeat
from operator import is_
from types import FunctionType, ModuleType

from shoal._pickling import _names, _pickler
from shoal._pickling._applied import Applied
from shoal._pickling._uses import shipped_key, uses_of
from shoal._runtime import _locks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final, Protocol

    _Group = tuple[Callable[..., Any], tuple[str, ...], tuple[Any, ...]]

    class Beforehand(Protocol):
        """Knows which names workers have without the log."""

        def has_module(self, module_name: str) -> bool:
            """Whether workers have the module, as this process has it."""

        def holds(self, key: _names.Key, value: Any) -> bool:
            """Whether workers have the name, bound to `value`, or to their own object in place of
            it.
            """

        def stays(self, key: _names.Key) -> bool:
            """Whether workers keep their object for the name even if this process binds it to
            another one.
            """


_FACTS: Final = ("__file__", "__package__", "__doc__")


class ForkedMain:
    """The contents of the main module, and the list of modules, at the fork of a template.

    Values are held weakly where possible, so that few objects are kept alive.
    """

    def __init__(self) -> None:
        self._modules = _names.present_modules()
        self._names: dict[str, Callable[[], Any]] = {}
        for name, value in list(vars(sys.modules[_names.MAIN]).items()):
            try:
                self._names[name] = weakref.ref(value)
            except TypeError:
                self._names[name] = lambda value=value: value  # type: ignore[misc]

    def has_module(self, module_name: str) -> bool:
        return module_name in self._modules

    def holds(self, key: _names.Key, value: Any) -> bool:
        reference = self._names.get(key[1]) if key[0] == _names.MAIN else None
        return reference is not None and reference() is value

    def stays(self, key: _names.Key) -> bool:
        return False


class ImportedMain:
    """The definitions of workers that import the main module: the names that its import binds. Each
    worker has its own objects for them, and keeps them, whatever this process binds the names to
    later.
    """

    def __init__(self, names: frozenset[str]) -> None:
        self._there = names

    def has_module(self, module_name: str) -> bool:
        return False

    def holds(self, key: _names.Key, value: Any) -> bool:
        return self.stays(key)

    def stays(self, key: _names.Key) -> bool:
        return key[0] == _names.MAIN and key[1] in self._there


class _Sent:
    """A name whose present value the workers have."""

    __slots__ = ("entry", "uses", "value")

    def __init__(self, value: Any, uses: Collection[_names.Key], entry: int) -> None:
        self.value = value  # a reference, so that no other object gets its id
        self.uses = uses
        self.entry = entry


class Watch:
    """A fast check whether some names, and all names that they use, are still bound to the objects
    that were sent. `holds` calls only functions written in C.
    """

    __slots__ = ("_groups", "generation")

    def __init__(self, sent: dict[_names.Key, _Sent], roots: Iterable[_names.Key], now: int):
        self.generation = now
        modules: dict[str, dict[str, Any]] = {}
        stack = list(roots)
        while stack:
            key = stack.pop()
            values = modules.setdefault(key[0], {})
            if key[1] not in values:
                values[key[1]] = sent[key].value
                stack.extend(sent[key].uses)
        self._groups: list[_Group] = [
            (vars(sys.modules[name]).get, tuple(values), tuple(values.values()))
            for name, values in modules.items()
        ]

    def holds(self) -> bool:
        for get, names, values in self._groups:
            if not all(map(is_, map(get, names, repeat(_names.ABSENT)), values)):
                return False
        return True


class Definitions:
    """The parent's side: the log, and the names that each function and class needs from it."""

    def __init__(self) -> None:
        from shoal._pickling._kept_functions import FunctionKeys

        self._log: list[bytes] = []
        self._sent: dict[_names.Key, _Sent] = {}
        self._ids: dict[int, _names.Key] = {}  # id of an object that `_sent` holds -> its name
        # By id, functions and classes that were sent under the names they were defined with: a
        # function that returns the current value of a name, the name, and its key.
        self.own_names: dict[int, tuple[Callable[[str], Any], str, _names.Key]] = {}
        self._watches: dict[_names.Key, Watch] = {}
        self._beforehand: Beforehand | None = None
        self._lock = _locks.RLock()
        self._replaceable: dict[int, set[_names.Key]] = {}  # entries of plain values only
        self._functions = FunctionKeys(self)
        self.generation = 0

    # --- the log -------------------------------------------------------------------------------

    @property
    def length(self) -> int:
        """The number of entries. A message that was just encoded may need all of them."""
        return len(self._log)

    def entry(self, index: int) -> bytes:
        """Entry `index`, for `Applied.apply`."""
        return self._log[index]

    def workers_have(self, beforehand: Beforehand) -> None:
        """Set what workers have without the log. Call it before the first worker starts."""
        self._beforehand = beforehand

    # --- functions -----------------------------------------------------------------------------

    def function_key(self, function: Any) -> tuple[str, Hashable] | None:
        """("cached", token) if workers may keep the function after the first task that uses it;
        None if the caller has to pickle it for each unit of work.

        Also updates the log for the names that the function uses. A function that must be sent
        again gets another token. `dropped_tokens` returns the tokens that will not be used again.
        """
        return self._functions.key(function)

    def encode_function(self, function: Any) -> bytes:
        """The function as bytes, for `decode_function` in a worker that has applied the log."""
        return _pickler.dumps_in_band(function, self, generous=True)

    def dropped_tokens(self) -> list[int]:
        """Tokens of functions that the garbage collector has freed since the last call."""
        return self._functions.dropped()

    # --- names ---------------------------------------------------------------------------------

    def require(self, keys: Iterable[_names.Key]) -> None:
        """Update the log for these names and all names that they use."""
        stale = []
        for key in keys:
            watch = self._watches.get(key)
            if watch is None or watch.generation != self.generation or not watch.holds():
                stale.append(key)
        if stale:
            with self._lock:
                self._update(stale)
                for key in stale:
                    self._watches[key] = self.watch((key,))

    def watch(self, roots: Iterable[_names.Key]) -> Watch:
        return Watch(self._sent, roots, self.generation)

    def has_sent(self, key: _names.Key) -> bool:
        """Whether workers have the present value: by an earlier entry, or without the log."""
        value = _value(key)
        sent = self._sent.get(key)
        if sent is not None:
            return sent.value is value
        return self._beforehand is not None and self._beforehand.holds(key, value)

    def key_of_sent(self, obj: Any) -> _names.Key | None:
        """The name under which an object was sent, or None."""
        key = self._ids.get(id(obj))
        return key if key is not None and self._sent[key].value is obj else None

    def workers_have_module(self, module_name: str) -> bool:
        return self._beforehand is not None and self._beforehand.has_module(module_name)

    def _update(self, keys: Iterable[_names.Key]) -> None:
        new = self.find_new(keys)
        if not new:
            return
        from shoal._pickling._entry import Entry

        entry = Entry(self, new)
        data = entry.encode()
        index = len(self._log)
        # Append before the names are noted as sent: other threads read those without the lock.
        self._log.append(data)
        for key, value in entry.values.items():
            self._replace(key, value, entry.uses[key], index)
        for key in entry.left_out:
            self._ids.pop(id(entry.values[key]), None)
        if all(_names.is_atom(value) for value in entry.values.values()):
            self._replaceable[index] = set(entry.values)
        self.generation += 1

    def find_new(self, keys: Iterable[_names.Key]) -> dict[_names.Key, Any]:
        """The values to send for `keys` and for the names that they use, by name. Names that
        workers have without the log are noted as sent.
        """
        new: dict[_names.Key, Any] = {}
        queue, seen = deque(keys), set(keys)
        while queue:
            key = queue.popleft()
            value, sent = _value(key), self._sent.get(key)
            if sent is not None and sent.value is value:
                uses: Collection[_names.Key] = sent.uses
            else:
                uses = uses_of(value, self)
                known = value is _names.ABSENT or (
                    self._beforehand is not None and self._beforehand.holds(key, value)
                )
                if known and sent is None:
                    self._sent[key] = _Sent(value, uses, -1)
                    self.generation += 1
                elif known and (value is _names.ABSENT or self._stays(key)):
                    self._replace(key, value, uses, -1)
                    self.generation += 1
                else:
                    new[key] = value
            queue.extend(k for k in uses if k not in seen)
            seen.update(uses)
        return new

    def _stays(self, key: _names.Key) -> bool:
        return self._beforehand is not None and self._beforehand.stays(key)

    def _replace(
        self, key: _names.Key, value: Any, uses: Collection[_names.Key], index: int
    ) -> None:
        old = self._sent.get(key)
        if old is not None:
            if self._ids.get(id(old.value)) == key:
                del self._ids[id(old.value)]
                self.own_names.pop(id(old.value), None)
            left = self._replaceable.get(old.entry)
            if left is not None:
                left.discard(key)
                if not left:
                    del self._replaceable[old.entry]
                    self._log[old.entry] = b""
        self._sent[key] = _Sent(value, uses, index)
        if not _names.is_atom(value) and not isinstance(value, ModuleType):
            self._ids[id(value)] = key
            if isinstance(value, (FunctionType, type)) and value.__qualname__ == key[1]:
                self.own_names[id(value)] = (vars(sys.modules[key[0]]).get, key[1], key)

    def facts(self, module_name: str) -> dict[str, Any]:
        """The plain values of `__file__` and the like, which functions may read from their module's
        globals.
        """
        variables = vars(sys.modules[module_name])
        facts = {name: variables.get(name) for name in _FACTS}
        return {n: v for n, v in facts.items() if v is not None and _names.is_atom(v)}


def _value(key: _names.Key) -> Any:
    module = sys.modules.get(key[0])
    value = _names.ABSENT if module is None else vars(module).get(key[1], _names.ABSENT)
    if type(value).__name__ == "lazy_import":  # 3.15: the import happens when the name is read
        value = getattr(module, key[1])
    return value


def decode_function(payload: Any) -> Any:
    """In a worker: the function from the bytes that `Definitions.encode_function` returned."""
    return _pickler.loads(payload)


__all__ = [
    "Applied",
    "Definitions",
    "ForkedMain",
    "ImportedMain",
    "decode_function",
    "shipped_key",
]
