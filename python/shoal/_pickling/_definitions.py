# SPDX-License-Identifier: Apache-2.0
"""The definitions of a pool: what its workers need of the parent's `__main__`, sent once.

The parent keeps a *log*. An entry holds functions, classes and values by name; a worker applies the
entries in order (`_applied.py`), after which arguments and results are pickled by reference.
A message says how long the log has to be: `length` right after the message was encoded.

1. The log only grows; `entry(i)` never changes, but for entries of plain values that were all sent
   again later: those become empty.
2. After `require(keys)`, every name of `keys` and all that they use have their present values in
   the log, or cannot be sent, which the entry says.
3. A name is sent again when it was bound to another object. Edits in place are not seen.

Thread safety: `require` takes a lock of its own; everything may be called from any thread. Design:
docs/design/definitions.md
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
        """What workers have without being sent it."""

        def has_module(self, module_name: str) -> bool:
            """Whether the module is there, with its names."""

        def holds(self, key: _names.Key, value: Any) -> bool:
            """Whether the name is bound there, to `value` or to what stands for it."""

        def stays(self, key: _names.Key) -> bool:
            """Whether it stays what it is there when this process binds it anew."""


_FACTS: Final = ("__file__", "__package__", "__doc__")


class ForkedMain:
    """What the main module and the list of modules were when a template was forked.

    Values are held weakly where they can be, so that it pins little.
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
    """What the main module binds when workers import it. It is theirs, whatever it is here."""

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
        self.value = value  # kept: its id must not become another object's
        self.uses = uses
        self.entry = entry


class Watch:
    """Names that must still be bound to the same objects; built of C functions for speed."""

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
    """The parent's side: the log, and what each function and class needs of it."""

    def __init__(self) -> None:
        from shoal._pickling._kept_functions import FunctionKeys

        self._log: list[bytes] = []
        self._sent: dict[_names.Key, _Sent] = {}
        self._ids: dict[int, _names.Key] = {}  # objects that `_sent` keeps
        # Functions and classes sent under their own names: how to see that they still have them.
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
        """The number of entries: what a message encoded just now requires."""
        return len(self._log)

    def entry(self, index: int) -> bytes:
        """Entry `index`, for `Applied.apply`."""
        return self._log[index]

    def workers_have(self, beforehand: Beforehand) -> None:
        """Call it before the first worker starts."""
        self._beforehand = beforehand

    # --- functions -----------------------------------------------------------------------------

    def function_key(self, function: Any) -> tuple[str, Hashable] | None:
        """("cached", token) if workers may keep the function, else None: pickle it per unit.

        The log has what the function needs afterwards. The token of a function changes when it
        has to be sent again; see `dropped_tokens` for tokens that will not come back.
        """
        return self._functions.key(function)

    def encode_function(self, function: Any) -> bytes:
        """Bytes for `decode_function` in a worker that has applied the log."""
        return _pickler.dumps_in_band(function, self, generous=True)

    def dropped_tokens(self) -> list[int]:
        """Tokens of functions that were collected since the last call."""
        return self._functions.dropped()

    # --- names ---------------------------------------------------------------------------------

    def require(self, keys: Iterable[_names.Key]) -> None:
        """Bring the log up to date for these names and all that they use."""
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
        """Whether workers have the present value, by an entry before the one being made or else."""
        value = _value(key)
        sent = self._sent.get(key)
        if sent is not None:
            return sent.value is value
        return self._beforehand is not None and self._beforehand.holds(key, value)

    def key_of_sent(self, obj: Any) -> _names.Key | None:
        """The name of an object that was sent as a global."""
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
        self._log.append(data)  # first: other threads find names as sent without taking the lock
        for key, value in entry.values.items():
            self._replace(key, value, entry.uses[key], index)
        for key in entry.left_out:
            self._ids.pop(id(entry.values[key]), None)
        if all(_names.is_atom(value) for value in entry.values.values()):
            self._replaceable[index] = set(entry.values)
        self.generation += 1

    def find_new(self, keys: Iterable[_names.Key]) -> dict[_names.Key, Any]:
        """The values to send for `keys` and what they use; notes what needs no sending."""
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
        """What functions may ask their module, beside the names that are shipped."""
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
    """In a worker: the function of `Definitions.encode_function`."""
    return _pickler.loads(payload)


__all__ = [
    "Applied",
    "Definitions",
    "ForkedMain",
    "ImportedMain",
    "decode_function",
    "shipped_key",
]
