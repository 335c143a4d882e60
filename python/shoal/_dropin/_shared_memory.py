# SPDX-License-Identifier: Apache-2.0
"""`multiprocessing.shared_memory`'s SharedMemory and ShareableList, as shoal's: the stock classes
are bases, and names are made by the stock module's function.
Design: docs/design/shared_memory.md
"""

from __future__ import annotations

import multiprocessing.shared_memory as stock

from shoal._shared import _shareable_list, _shared_memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_stock: Any = stock


class SharedMemory(_shared_memory.SharedMemory, _stock.SharedMemory):  # type: ignore[misc]
    """A named block, with shoal's lifetime: see `shoal.SharedMemory`."""

    def _new_name(self) -> str:
        name: str = _stock._make_filename()
        return name

    def __del__(self) -> None:
        """The stock class closes here; the memory goes by itself."""


class ShareableList(_shareable_list.ShareableList, _stock.ShareableList):  # type: ignore[misc]
    """A list of fixed length in a block, exact: see `shoal.ShareableList`."""

    _block = SharedMemory
