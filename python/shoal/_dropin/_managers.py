# SPDX-License-Identifier: Apache-2.0
"""`multiprocessing.managers.SyncManager` on shared memory.

`Manager()` starts no process. The objects that it makes are in shared memory, and each process
accesses them itself (`_proxies.py`).

The stock server is started by the first use that needs a server: a type that the program
registered, `Pool`, `start()` with an initializer, `address`. A manager that is given an address,
and every subclass, is the standard library's own.
Design: docs/design/collections.md
"""

from __future__ import annotations

import multiprocessing.managers as stock
import multiprocessing.util as stock_util
import traceback
import weakref
from collections.abc import Callable, Iterable

from shoal._dropin import _proxies as proxies
from shoal._runtime._native import core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_stock: Any = stock

_TYPES: dict[str, Callable[..., Any]] = {
    "dict": proxies.DictProxy,
    "list": proxies.ListProxy,
    "Namespace": proxies.NamespaceProxy,
    "Value": proxies.ValueProxy,
    "Array": proxies.ArrayProxy,
    "Queue": proxies.QueueProxy,
    "JoinableQueue": proxies.JoinableQueueProxy,
    "Lock": proxies.LockProxy,
    "RLock": proxies.RLockProxy,
    "Semaphore": proxies.SemaphoreProxy,
    "BoundedSemaphore": proxies.BoundedSemaphoreProxy,
    "Condition": proxies.ConditionProxy,
    "Event": proxies.EventProxy,
    "Barrier": proxies.BarrierProxy,
}
if "set" in _stock.SyncManager._registry:
    _TYPES["set"] = proxies.SetProxy
# The standard library's own registrations. A program that registers another type under such a name
# gets that type, from a server.
_REGISTERED = {name: _stock.SyncManager._registry[name] for name in _TYPES}


class SyncManager(_stock.SyncManager):  # type: ignore[misc]
    """`multiprocessing.managers.SyncManager` without a server, as long as none is needed."""

    def __init__(
        self,
        address: Any = None,
        authkey: bytes | None = None,
        serializer: str = "pickle",
        ctx: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(address, authkey, serializer, ctx, **options)
        self._process: Any = None
        self._live: weakref.WeakSet[Any] = weakref.WeakSet()
        self._stops: list[Callable[[], object]] = []  # finalizers of the server, once it runs

    @staticmethod
    def _left(address: Any = None, *arguments: Any, **options: Any) -> str:
        """Why a call with these arguments is left to the standard library; "" if it is not."""
        return "" if address is None else "it has an address, so it needs a server"

    def start(
        self, initializer: Callable[..., object] | None = None, initargs: Iterable[Any] = ()
    ) -> None:
        if self._state.value != _stock.State.INITIAL or initializer is not None:
            # In a wrong state this raises, as in the standard library. An initializer needs a
            # server to run in.
            return self._start_server(initializer, initargs)
        self._started()

    def _started(self) -> None:
        self._state.value = _stock.State.STARTED
        self.shutdown = stock_util.Finalize(
            self, _shut_down, args=(self._state, self._stops, self._live), exitpriority=0
        )

    def _start_server(
        self, initializer: Callable[..., object] | None = None, initargs: Iterable[Any] = ()
    ) -> None:
        super().start(initializer, initargs)
        self._stops.append(self.shutdown)
        self._started()

    def _serve(self) -> None:
        """Start the server, which this manager has not needed so far."""
        assert self._state.value == _stock.State.STARTED, "server not yet started"
        if self._process is None and self._address is None:
            self.shutdown.cancel()
            self._state.value = _stock.State.INITIAL
            self._start_server()

    def _create(self, typeid: str, /, *args: Any, **kwds: Any) -> Any:
        """Make an object in the server; for types that shoal does not implement."""
        self._serve()
        return super()._create(typeid, *args, **kwds)

    def join(self, timeout: float | None = None) -> None:
        if self._process is not None:
            super().join(timeout)

    @property
    def address(self) -> Any:
        if self._state.value == _stock.State.STARTED:
            self._serve()
        return self._address

    def connect(self) -> None:
        super().connect()  # raises as long as no server, and so no address, exists

    def _number_of_objects(self) -> int:
        there = super()._number_of_objects() if self._process is not None else 0
        return len(self._live) + there

    def _debug_info(self) -> str:
        here = [f"  {made!r}" for made in self._live]
        there = super()._debug_info() if self._process is not None else ""
        return "\n".join([*here, there])

    def _make(self, typeid: str, args: Any, kwargs: Any) -> Any:
        if type(self)._registry.get(typeid) is not _REGISTERED[typeid]:
            return getattr(super(), typeid)(*args, **kwargs)
        assert self._state.value == _stock.State.STARTED, "server not yet started"
        try:
            made = _build(typeid, args, kwargs)
        except Exception:
            text = traceback.format_exc()
            raise _stock.RemoteError(text) from None
        # Keeps the manager alive: in `Manager().Queue()` its end would also end the queue.
        made._manager = self
        self._live.add(made)
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        if self._process is None and self._address is None:
            return _manager_of_child, ()
        reduced: tuple[Any, ...] = super().__reduce__()
        return reduced


def _build(typeid: str, args: Any, kwargs: Any) -> Any:
    if typeid in ("list", "set") and len(args) == 1 and not kwargs:
        # The iterable is read to its end before the object is made, as a server would receive it.
        return _TYPES[typeid](list(args[0]))
    return _TYPES[typeid](*args, **kwargs)


def _manager_of_child() -> SyncManager:
    """The manager, in a child process that received it while being started."""
    made = SyncManager()
    made._state.value = _stock.State.STARTED
    return made


def _shut_down(state: Any, stops: list[Callable[[], object]], live: Any) -> None:
    """Shut down the manager's queues, so that their waiters get an error, and end the server."""
    for made in list(live):
        if isinstance(made, core.Queue):
            made._shutdown()
    for stop in stops:
        stop()
    state.value = _stock.State.SHUTDOWN


def _method(typeid: str) -> Callable[..., Any]:
    def make(self: SyncManager, /, *args: Any, **kwargs: Any) -> Any:
        return self._make(typeid, args, kwargs)

    make.__name__ = typeid
    make.__qualname__ = f"SyncManager.{typeid}"
    return make


for _typeid in _TYPES:
    setattr(SyncManager, _typeid, _method(_typeid))
del _typeid
