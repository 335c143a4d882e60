# SPDX-License-Identifier: Apache-2.0
"""Crash tests end by themselves or not at all: the watchdog is generous, since the machine may be
busy.
"""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/crash" in str(item.path) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(300))
