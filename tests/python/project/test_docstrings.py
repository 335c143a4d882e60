# SPDX-License-Identifier: Apache-2.0
"""The examples in docstrings are run, each module's in an interpreter of its own."""

from __future__ import annotations

import pytest

MODULES = (
    "shoal",
    "shoal.errors",
    "shoal.multiprocessing",
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

        for each in getattr({name}, "__all__", ()):  # some are loaded when they are first used
            getattr({name}, each)
        result = doctest.testmod({name})
        assert result.attempted > 0 and result.failed == 0, result
        """
    ).check()
