# SPDX-License-Identifier: Apache-2.0
"""shoal's SharedMemory and ShareableList as `multiprocessing.shared_memory` has them: the stock
classes are bases, and the stock module's function makes the names.
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
        """Overrides the stock class's `__del__`, which closes the block; shoal frees the memory
        itself.
        """


class ShareableList(_shareable_list.ShareableList, _stock.ShareableList):  # type: ignore[misc]
    """A list of fixed length in a block, with exact values: see `shoal.ShareableList`."""

    _block = SharedMemory
