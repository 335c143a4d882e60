# SPDX-License-Identifier: Apache-2.0
"""The program's main module: can another process run it without starting the program again?"""

from __future__ import annotations

import re
import sys
from typing import Final

_GUARD: Final = re.compile(
    rb"""__name__\s*(?:==|!=|in)\s*[(\[{]?\s*["']__main__|["']__main__["']\s*(?:==|!=)\s*__name__"""
)


def is_guarded() -> bool:
    """Whether it is a file that asks somewhere for its name, `if __name__ == "__main__"`.

    `__main__.py` of a package, a folder or an archive is not imported by others, as in the standard
    library.
    """
    main = sys.modules.get("__main__")
    name = getattr(getattr(main, "__spec__", None), "name", None)
    if name is not None and (name == "__main__" or name.endswith(".__main__")):
        return False
    try:
        with open(getattr(main, "__file__", None) or "", "rb") as file:
            return _GUARD.search(file.read()) is not None
    except (OSError, TypeError, ValueError):
        return False
