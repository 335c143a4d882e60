# SPDX-License-Identifier: Apache-2.0
"""The functions that shoal's pickles call while they are loaded. The pickles contain their names.

Module state: `loading` (by thread, the nodes of the graph message that it is loading) and
`main_globals` (set once, before any entry is applied).
"""

from __future__ import annotations

import functools
import pickle
import sys
import threading

from shoal._pickling import _names
from shoal._runtime import _imports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

GRAPH_MARK: Final = 1  # the first byte of a graph message (`_load_graph.py`)


class _Loading(threading.local):
    nodes: list[Any] | None = None


loading = _Loading()
# The globals of the functions of a main module that `runpy` has run. The module object that
# multiprocessing creates for it has only a copy of them.
main_globals: dict[str, Any] | None = None


def module_named(name: str) -> Any:
    return _imports.import_module(name)


def node(index: int) -> Any:
    """A node of the graph message that this thread is loading."""
    nodes = loading.nodes
    if nodes is None:
        raise pickle.UnpicklingError("shoal: a part of a message, loaded on its own")
    return nodes[index]


def module_dict(name: str) -> dict[str, Any]:
    """The globals of the module's functions."""
    if name == _names.MAIN and main_globals is not None:
        return main_globals
    module = sys.modules.get(name)
    return vars(_imports.import_module(name) if module is None else module)


def named(module_name: str, qualname: str) -> Any:
    """An object by its name in this process."""
    found: Any = sys.modules.get(module_name) or _imports.import_module(module_name)
    for part in qualname.split("."):
        found = getattr(found, part)
    return found


def array(buffer: Any, dtype: Any, shape: tuple[int, ...], order: Any) -> Any:
    import numpy

    made = numpy.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)
    return made if made.flags.writeable else made.copy(order=order)


def lru_cache(function: Any, maxsize: int | None, typed: bool) -> Any:
    return functools.lru_cache(maxsize, typed)(function)
