# SPDX-License-Identifier: Apache-2.0
"""The examples in docstrings are run, each in the module that states them."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = ("shoal._sync", "shoal._install")


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_are_true(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
