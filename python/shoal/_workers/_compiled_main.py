# SPDX-License-Identifier: Apache-2.0
"""What `_main_module` reads off a main module's source, read off its compiled file (`.pyc`).

The code of a guard loads the question, `__name__` or a text such as "__main__", and then jumps over
what only the program runs. What is bound up to there, and from there on, others have by importing
it.
"""

from __future__ import annotations

import dis
import importlib.util
import marshal
from collections.abc import Set
from types import CodeType

_HEADER = 16  # bytes in front of the code: magic number, flags, facts of the source
_LOOKAHEAD = 8  # instructions from the question to its jump


def read(data: bytes, name: str, texts: Set[str]) -> frozenset[str] | None:
    """Names bound by importing it; None: it has no guard, or is another version's."""
    if data[:4] != importlib.util.MAGIC_NUMBER:
        return None
    code = marshal.loads(data[_HEADER:])
    return _read_code(code, {name, *texts}) if isinstance(code, CodeType) else None


def _read_code(code: CodeType, questions: set[str]) -> frozenset[str] | None:
    bound: set[str] = set()
    inside: set[str] = set()  # bound by the program only; its handlers of exceptions lie at the end
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
