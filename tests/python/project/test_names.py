# SPDX-License-Identifier: Apache-2.0
"""Which global names code reads."""

from __future__ import annotations

import dis
import opcode

from shoal._pickling import _names
from shoal._runtime._native import core


def test_the_cores_opcodes_are_the_interpreters() -> None:
    numbers = core.opcodes()
    assert {"EXTENDED_ARG", "LOAD_GLOBAL", "LOAD_NAME"} <= set(numbers)
    for name in ("LOAD_FROM_DICT_OR_GLOBALS", *numbers):
        assert numbers.get(name) == opcode.opmap.get(name)


def test_names_are_those_that_the_disassembler_sees() -> None:
    many = "\n".join(f"    name_{number}" for number in range(300))
    source = (
        f"def function():\n{many}\n    class Inner:\n        inner\n    return lambda: nested\n"
    )
    namespace: dict = {}
    exec(source, namespace)
    code = namespace["function"].__code__
    seen = {
        instruction.argval
        for part in _names.nested_codes(code)
        for instruction in dis.get_instructions(part)
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
    }
    assert set(_names.global_names(code)) == seen > {"name_0", "name_299", "inner", "nested"}
