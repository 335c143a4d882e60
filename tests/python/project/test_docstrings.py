# SPDX-License-Identifier: Apache-2.0
"""The examples in docstrings are run, each module's in an interpreter of its own."""

from __future__ import annotations

import pytest

MODULES = (
    "shoal",
    "shoal.adapters.joblib",
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_are_true(interpreter, name: str) -> None:
    if name.endswith(".joblib"):
        pytest.importorskip("joblib")
    interpreter(
        f"""
        import doctest
        import {name}

        if {name} is shoal:  # its names are loaded when they are first used
            [getattr(shoal, each) for each in shoal.__all__]
        result = doctest.testmod({name})
        assert result.attempted > 0 and result.failed == 0, result
        """
    ).check()
