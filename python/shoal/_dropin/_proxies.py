# SPDX-License-Identifier: Apache-2.0
"""The proxies of `multiprocessing.managers` on shared memory.

The bases of each class are the C type, shoal's native class and, last, the stock proxy class, so
that `isinstance` holds; no stock proxy code runs. Names and reprs are the stock ones. Like stock
proxies, they can be pickled at any time; only members of the session can unpickle them.
Design: docs/design/collections.md
"""

from __future__ import annotations

import array
import multiprocessing.managers as stock
import multiprocessing.process as stock_process
from collections.abc import Callable, Iterable, Iterator
from types import GenericAlias
from typing import TYPE_CHECKING, Any

from shoal._runtime import _session
from shoal._runtime._native import core
from shoal._shared import _collections, _queues, _sync

if TYPE_CHECKING:
    from typing_extensions import Self

_stock: Any = stock
_process: Any = stock_process
_MISSING = object()


class _Proxy:
    """The attributes that code written for stock proxies expects of every proxy."""

    _typeid = ""
    _manager = None
    _serializer = "pickle"
    _handle: int

    @property
    def _token(self) -> Any:
        return _stock.Token(self._typeid, None, self._id)

    @property
    def _id(self) -> str:
        return f"{self._handle:x}"

    @property
    def _authkey(self) -> bytes:
        key: bytes = _process.current_process().authkey
        return key

    def _callmethod(self, methodname: str, args: Any = (), kwds: Any = {}) -> Any:  # noqa: B006
        """Call a method by its name, as code written for stock proxies does."""
        if methodname == "#GETVALUE":
            return self._getvalue()
        exposed = getattr(type(self), "_exposed_", ())
        if methodname not in exposed:
            raise _stock.RemoteError(
                f"method {methodname!r} of {self._typeid!r} object is not in exposed={exposed!r}"
            )
        return getattr(self, methodname)(*args, **kwds)

    def _getvalue(self) -> Any:
        return self.copy()  # type: ignore[attr-defined]

    def __deepcopy__(self, memo: Any) -> Any:
        return self._getvalue()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} object, typeid {self._typeid!r} at {id(self):#x}>"

    def __str__(self) -> str:
        return repr(self._getvalue())

    __eq__ = object.__eq__
    __ne__ = object.__ne__
    __hash__ = object.__hash__

    def _connect(self) -> None:
        """Nothing to connect to."""

    _incref = _after_fork = _connect


class DictProxy(_Proxy, _collections.Dict[Any, Any], _stock.DictProxy):  # type: ignore[misc]
    """A `dict` of a manager, in shared memory."""

    _typeid = "dict"

    def __iter__(self) -> Iterator[Any]:
        return self._while_unchanged(*self._snapshot(core.COPY_KEYS))

    def _while_unchanged(self, shape: int, keys: list[Any]) -> Iterator[Any]:
        for key in [*keys, _MISSING]:
            if self._shape != shape:
                raise RuntimeError("dictionary changed size during iteration")
            if key is not _MISSING:
                yield key

    def __reversed__(self) -> Iterator[Any]:
        return iter(self.keys()[::-1])

    def keys(self) -> list[Any]:  # type: ignore[override]
        return self._snapshot(core.COPY_KEYS)[1]

    def values(self) -> list[Any]:  # type: ignore[override]
        return self._snapshot(core.COPY_VALUES)[1]

    def items(self) -> list[tuple[Any, Any]]:  # type: ignore[override]
        return self._snapshot(core.COPY_ITEMS)[1]

    def popitem(self) -> tuple[Any, Any]:  # type: ignore[override]
        return _collections.Dict.popitem(self)

    def fromkeys(self, keys: Iterable[Any], value: Any = None) -> dict[Any, Any]:  # type: ignore[override]
        return dict.fromkeys(keys, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return _session.reduce_shared(_collections._map_at, self, type(self))


class ListProxy(_Proxy, _collections.List[Any], _stock.ListProxy):  # type: ignore[misc]
    """A `list` of a manager, in shared memory."""

    _typeid = "list"

    def __reversed__(self) -> Iterator[Any]:
        return iter(self.copy()[::-1])


_stock_set: Any = getattr(_stock, "SetProxy", _stock.BaseProxy)


class SetProxy(_Proxy, _collections.Set[Any], _stock_set):  # type: ignore[misc]
    """A `set` of a manager, in shared memory (managers have it from 3.14 on)."""

    _typeid = "set"
    __class_getitem__: Any = classmethod(GenericAlias)


class NamespaceProxy(_Proxy, _collections.Namespace, _stock.NamespaceProxy):  # type: ignore[misc]
    """A Namespace of a manager, in shared memory."""

    _typeid = "Namespace"
    __dir__ = _collections.Namespace.__dir__

    def _getvalue(self) -> Any:
        return _stock.Namespace(**dict(self._snapshot(core.COPY_ITEMS)[1]))

    def _callmethod(self, methodname: str, args: Any = (), kwds: Any = {}) -> Any:  # noqa: B006
        if methodname == "#GETVALUE":
            return self._getvalue()
        own = {"__getattribute__", "__setattr__", "__delattr__"}
        if methodname in own:
            return getattr(core.Namespace, methodname)(self, *args)
        return super()._callmethod(methodname, args, kwds)


class ValueProxy(_Proxy, _stock.ValueProxy):  # type: ignore[misc]
    """A Value of a manager: any object, in shared memory."""

    _typeid = "Value"

    def __init__(self, typecode: Any, value: Any, lock: Any = True) -> None:
        self._typecode = typecode
        self._cell = _collections.List([value])

    @property
    def _handle(self) -> int:  # type: ignore[override]
        return self._cell._handle

    def get(self) -> Any:
        return self._cell[0]

    def set(self, value: Any) -> None:
        self._cell[0] = value

    value = property(get, set)

    def _getvalue(self) -> Any:
        return _stock.Value(self._typecode, self.get())

    def __reduce__(self) -> tuple[Any, ...]:
        return _session.reduce_shared(_value_at, self._cell, type(self), self._typecode)


def _value_at(handle: int, cls: Any, typecode: Any) -> Any:
    made = cls.__new__(cls)
    made._typecode = typecode
    made._cell = _collections._sequence_at(handle, _collections.List)
    return made


class ArrayProxy(_Proxy, _stock.ArrayProxy):  # type: ignore[misc]
    """An Array of a manager: numbers of one type, in shared memory."""

    _typeid = "Array"

    def __init__(self, typecode: str, sequence: Any, lock: Any = True) -> None:
        self._typecode = typecode
        self._cells = _collections.List(array.array(typecode, sequence).tolist())

    @property
    def _handle(self) -> int:  # type: ignore[override]
        return self._cells._handle

    def __len__(self) -> int:
        return len(self._cells)

    def __getitem__(self, index: Any) -> Any:
        found = self._cells[index]
        return array.array(self._typecode, found) if isinstance(index, slice) else found

    def __setitem__(self, index: Any, value: Any) -> None:
        if not isinstance(index, slice):
            self._cells[index] = array.array(self._typecode, [value])[0]
        elif isinstance(value, array.array) and value.typecode == self._typecode:
            self._cells[index] = value.tolist()
        else:
            raise TypeError(f"can only assign array of type {self._typecode!r} to array slice")

    def _getvalue(self) -> Any:
        return array.array(self._typecode, self._cells.copy())

    def __reduce__(self) -> tuple[Any, ...]:
        return _session.reduce_shared(_array_at, self._cells, type(self), self._typecode)


def _array_at(handle: int, cls: Any, typecode: str) -> Any:
    made = cls.__new__(cls)
    made._typecode = typecode
    made._cells = _collections._sequence_at(handle, _collections.List)
    return made


# ---- Locks and other synchronization objects, with the names and errors of the threading module


class _SyncProxy(_Proxy):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Does nothing: the C type's `__new__` makes complete objects."""

    def _getvalue(self) -> Any:
        raise TypeError(f"a {self._typeid} has no copy")

    def __str__(self) -> str:
        return repr(self)


def _seconds(timeout: float | None) -> float | None:
    """Convert a timeout of the threading module, where -1 means no timeout."""
    return None if timeout == -1 else timeout


class _AcquirerProxy(_SyncProxy):
    _core: Any  # the C type

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        return bool(self._core.acquire(self, blocking, _seconds(timeout)))

    def release(self) -> None:
        self._core.release(self)


class LockProxy(_AcquirerProxy, _sync.Lock, _stock.AcquirerProxy):  # type: ignore[misc]
    """A `threading.Lock` for all processes."""

    _typeid = "Lock"
    _core = core.Lock
    __enter__ = core.Lock.__enter__
    __exit__ = core.Lock.__exit__

    def release(self) -> None:
        try:
            core.Lock.release(self)
        except ValueError:
            # A lock whose owner died can be released once, by any process.
            if not (core.Lock.acquire(self, False) and self._release_from_dead()):
                raise RuntimeError("release unlocked lock") from None

    def _release_from_dead(self) -> bool:
        died = self.owner_died
        core.Lock.release(self)
        return died


class RLockProxy(_AcquirerProxy, _sync.RLock, _stock.AcquirerProxy):  # type: ignore[misc]
    """A `threading.RLock` for all processes."""

    _typeid = "RLock"
    _core = core.RLock
    __enter__ = core.RLock.__enter__
    __exit__ = core.RLock.__exit__

    def release(self) -> None:
        try:
            core.RLock.release(self)
        except AssertionError:
            raise RuntimeError("cannot release un-acquired lock") from None


class SemaphoreProxy(_AcquirerProxy, _sync.Semaphore, _stock.AcquirerProxy):  # type: ignore[misc]
    """A `threading.Semaphore` for all processes."""

    _typeid = "Semaphore"
    _core = core.Semaphore
    __enter__ = core.Semaphore.__enter__
    __exit__ = core.Semaphore.__exit__


class BoundedSemaphoreProxy(_AcquirerProxy, _sync.BoundedSemaphore, _stock.AcquirerProxy):  # type: ignore[misc]
    """A `threading.BoundedSemaphore` for all processes."""

    _typeid = "BoundedSemaphore"
    _core = core.Semaphore
    __enter__ = core.Semaphore.__enter__
    __exit__ = core.Semaphore.__exit__


class ConditionProxy(_SyncProxy, _sync.Condition, _stock.ConditionProxy):  # type: ignore[misc]
    """A `threading.Condition` for all processes."""

    _typeid = "Condition"

    def __new__(cls, lock: Any = None) -> Self:
        return _sync.Condition.__new__(cls, RLockProxy() if lock is None else lock)

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        return bool(self._lock.acquire(blocking, _seconds(timeout)))

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()

    def wait(self, timeout: float | None = None) -> bool:
        done: bool = self._locked("wait", core.Condition.wait, timeout)
        return done

    def notify(self, n: int = 1) -> None:  # type: ignore[override]
        self._locked("notify", core.Condition.notify, n)

    def notify_all(self) -> None:  # type: ignore[override]
        self._locked("notify", core.Condition.notify_all)

    def _locked(self, verb: str, call: Callable[..., Any], *args: Any) -> Any:
        try:
            return call(self, *args)
        except AssertionError:
            raise RuntimeError(f"cannot {verb} on un-acquired lock") from None


class EventProxy(_SyncProxy, _sync.Event, _stock.EventProxy):  # type: ignore[misc]
    """A `threading.Event` for all processes."""

    _typeid = "Event"


class BarrierProxy(_SyncProxy, _sync.Barrier, _stock.BarrierProxy):  # type: ignore[misc]
    """A `threading.Barrier` for all processes; the action runs in the process that arrives last."""

    _typeid = "Barrier"


class QueueProxy(_SyncProxy, _queues.JoinableQueue[Any], _stock.BaseProxy):  # type: ignore[misc]
    """A `queue.Queue` for all processes."""

    _exposed_ = (
        "empty", "full", "get", "get_nowait", "join", "put", "put_nowait", "qsize", "task_done",
    )  # fmt: skip
    _typeid = "Queue"
    _isauto = True

    def __new__(cls, maxsize: int = 0) -> Self:
        return core.Queue.__new__(cls, max(maxsize, 0), 0, 0, False, True)

    def join(self, timeout: float | None = None) -> None:  # type: ignore[override]
        self._join(timeout)


class JoinableQueueProxy(QueueProxy):
    _typeid = "JoinableQueue"


for _cls in (LockProxy, RLockProxy, SemaphoreProxy, BoundedSemaphoreProxy):
    _cls.__name__ = "AcquirerProxy"
for _queue in (QueueProxy, JoinableQueueProxy):
    _queue.__name__ = f"AutoProxy[{_queue._typeid}]"
del _cls, _queue
