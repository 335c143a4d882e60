# SPDX-License-Identifier: Apache-2.0
"""Locks among the threads of this process."""

from __future__ import annotations

import os
import types

from shoal._runtime import _locks


def test_the_child_of_a_fork_has_a_new_lock_and_may_let_go_of_the_old_one() -> None:
    owner = types.SimpleNamespace(lock=_locks.Lock())
    _locks.renew_in_children(owner, "lock", _locks.Lock)
    before = owner.lock
    pid = -1
    try:
        with owner.lock:
            pid = os.fork()
            fresh = owner.lock.acquire(blocking=False)
        if pid == 0:
            os._exit(0 if fresh and owner.lock is not before else 1)
    finally:
        if pid == 0:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert owner.lock is before and not fresh
