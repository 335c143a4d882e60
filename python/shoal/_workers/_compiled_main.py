# SPDX-License-Identifier: Apache-2.0
"""Does for a compiled main module (`.pyc`) what `_main_source` does for a source file: find its
guard and the names that importing it binds.

The bytecode of a guard loads `__name__`, or a text such as "__main__", and then jumps over the code
that only the program runs. The names that are bound before or after the skipped code are the ones
that an import binds.
"""

from __future__ import annotations

import dis
import importlib.util
import marshal
from collections.abc import Set
from types import CodeType

_HEADER = 16  # bytes before the code: magic number, flags, modification time and size or hash
_LOOKAHEAD = 8  # the most instructions between loading the name or text and the jump


def read(data: bytes, name: str, texts: Set[str]) -> frozenset[str] | None:
    """The names that importing the module binds; None if it has no guard, or was compiled by
    another Python version.
    """
    if data[:4] != importlib.util.MAGIC_NUMBER:
        return None
    code = marshal.loads(data[_HEADER:])
    return _read_code(code, {name, *texts}) if isinstance(code, CodeType) else None


def _read_code(code: CodeType, questions: set[str]) -> frozenset[str] | None:
    bound: set[str] = set()
    # Names bound only by the program. Its exception handlers lie at the end of the bytecode, where
    # they would look as if they were outside the guard.
    inside: set[str] = set()
    found = False
    guarded_to, asked_at = -1, -_LOOKAHEAD
    for place, instruction in enumerate(dis.get_instructions(code)):
        if instruction.opname.startswith("LOAD_") and instruction.argval in questions:
            asked_at = place
        elif _is_jump(instruction) and place - asked_at < _LOOKAHEAD:
            found, asked_at = True, -_LOOKAHEAD
            guarded_to = max(guarded_to, instruction.argval)
        elif instruction.opname == "STORE_NAME":
            if instruction.offset < guarded_to:
                inside.add(instruction.argval)
            elif instruction.argval not in inside:
                bound.add(instruction.argval)
    return frozenset(bound) if found else None


def _is_jump(instruction: dis.Instruction) -> bool:
    name = instruction.opname
    return "JUMP" in name and "_IF_" in name and isinstance(instruction.argval, int)
