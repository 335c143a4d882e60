# SPDX-License-Identifier: Apache-2.0
"""The package can be imported, and says what it is."""

from __future__ import annotations

import shoal


def test_import_gives_the_public_names():
    for name in shoal.__all__:
        assert getattr(shoal, name) is not None, name


def test_submodules_are_there_without_being_imported_by_name(interpreter):
    interpreter(
        """
        import shoal
        assert shoal.multiprocessing.Queue and shoal.errors.PoolClosed is shoal.PoolClosed
        assert {"errors", "multiprocessing", "Pool"} <= set(dir(shoal))
        """
    ).check()
