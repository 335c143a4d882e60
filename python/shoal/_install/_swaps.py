# SPDX-License-Identifier: Apache-2.0
"""The drop-in's table: which stock classes `shoal.install()` swaps, and which classes replace them.

To swap another class, add a row to `SWAPS` (docs/design/drop_in.md, "To add a class"). Rows name
modules and classes by text, so nothing is imported before the first object is made.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Swap:
    """One row: the stock class `module.name`, and shoal's subclass of it at `home`.

    `context` names the constructor's parameter for the context, `position` is its index among the
    positional parameters (None: keyword only). A class at `home` may have a static method
    `_left(*args, **kwargs)`, which returns why a call is left to the standard library, or "" if it
    is not.
    """

    __slots__ = ("context", "home", "loaded", "module", "name", "position")

    def __init__(
        self, module: str, name: str, home: str, context: str = "ctx", position: int | None = None
    ) -> None:
        self.module = module
        self.name = name
        self.home = home
        self.context = context
        self.position = position
        self.loaded: Any = None

    def load(self) -> type:
        """Shoal's class."""
        if self.loaded is None:
            self.loaded = load(self.home)
        found: type = self.loaded
        return found

    def context_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The context that the constructor was given, or None."""
        place = self.position
        given = args[place] if place is not None and len(args) > place else None
        return kwargs.get(self.context, given)


def load(home: str) -> Any:
    """The object that `"module:name"` names."""
    from shoal._runtime import _imports

    module, _, name = home.partition(":")
    return getattr(_imports.load(module), name)


POOL = "shoal._dropin._pool:DropInPool"
_POOL = "multiprocessing.pool"
_SYNC = "multiprocessing.synchronize"
_QUEUES = "multiprocessing.queues"
_VALUES = "multiprocessing.sharedctypes"
_MEMORY = "multiprocessing.shared_memory"

SWAPS = (
    Swap(_POOL, "Pool", POOL, "context", 4),
    Swap(
        "concurrent.futures.process",
        "ProcessPoolExecutor",
        "shoal._dropin._executor:DropInExecutor",
        "mp_context",
        1,
    ),
    Swap(_SYNC, "Lock", "shoal._dropin._sync:Lock"),
    Swap(_SYNC, "RLock", "shoal._dropin._sync:RLock"),
    Swap(_SYNC, "Semaphore", "shoal._dropin._sync:Semaphore"),
    Swap(_SYNC, "BoundedSemaphore", "shoal._dropin._sync:BoundedSemaphore"),
    Swap(_SYNC, "Condition", "shoal._dropin._sync:Condition"),
    Swap(_SYNC, "Event", "shoal._dropin._sync:Event"),
    Swap(_SYNC, "Barrier", "shoal._dropin._sync:Barrier"),
    Swap(_QUEUES, "Queue", "shoal._dropin._queues:Queue"),
    Swap(_QUEUES, "JoinableQueue", "shoal._dropin._queues:JoinableQueue"),
    Swap(_QUEUES, "SimpleQueue", "shoal._dropin._queues:SimpleQueue"),
    Swap(_VALUES, "Synchronized", "shoal._dropin._values:Synchronized", "ctx", 2),
    Swap(_MEMORY, "SharedMemory", "shoal._dropin._shared_memory:SharedMemory"),
    Swap(_MEMORY, "ShareableList", "shoal._dropin._shared_memory:ShareableList"),
    Swap(
        "multiprocessing.managers", "SyncManager", "shoal._dropin._managers:SyncManager", "ctx", 3
    ),
)

# Modules whose classes a context's methods (`Pool()`, `Lock()`...) can replace without importing
# them.
BY_CONTEXT = frozenset({_POOL, _SYNC, _QUEUES})

# Functions that are called with a module of another package once it is imported: (module, home).
ADAPTERS = (
    ("joblib.parallel", "shoal.adapters.joblib:serve"),
    ("joblib.externals.loky.reusable_executor", "shoal.adapters._loky:serve"),
    ("loky.reusable_executor", "shoal.adapters._loky:serve"),
)

# Functions of stock modules that are replaced in their modules: (module, name, home).
FUNCTIONS = (
    (_VALUES, "_new_value", "shoal._dropin._values:new_value"),
    ("multiprocessing.resource_tracker", "unregister", "shoal._shared._tracking:unregister"),
    ("multiprocessing.connection", "Pipe", "shoal._dropin._pipes:Pipe"),
)
