# SPDX-License-Identifier: Apache-2.0
"""The package can be imported, and says what it is."""

from __future__ import annotations

import shoal


def test_import_gives_the_public_names():
    for name in shoal.__all__:
        assert getattr(shoal, name) is not None, name
