# SPDX-License-Identifier: Apache-2.0
"""Sends shared objects and their session to other processes.

An object in shared memory pickles as (session, handle). The process that unpickles it must be a
member of the session:

1. Forked children are members already (the core's fork handlers).
2. A child of spawn or forkserver joins. The session's memory file is passed to it once, whatever
   the number of objects, as a descriptor of the process being spawned. The data for joining is in
   the preparation data, which the child reads before it imports the program's main module. It is
   also sent beside each object, for children whose preparation data other code makes.
3. The fork server may make objects itself, in modules that it preloads. It must not create its own
   session for them, so it gets this process's session when it starts: the variable SHOAL_JOIN, set
   only during the start and only for the fork server, names the memory file's descriptor in this
   process.
4. Within the session (in a task, a queue) only the handle is sent.

The parent keeps an object that is passed to a child being spawned as long as it has the child's
Popen object, so that the object is not freed before it has arrived. An object that is sent in any
other way is kept by the sending process until that ends (`_given_handle` does so).

Module state: `_arrived_pid`, the pid of the process that has used up its descriptor of the session.
Design: docs/design/drop_in.md
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from shoal._runtime._native import core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ANNOUNCED = "SHOAL_JOIN"
_arrived_pid = 0


def spawning_popen() -> Any:
    """The Popen object of the child for which this thread is pickling, or None."""
    context: Any = sys.modules.get("multiprocessing.context")
    return None if context is None else context.get_spawning_popen()


def reduce_shared(rebuild: Callable[..., Any], obj: Any, *arguments: Any) -> tuple[Any, ...]:
    """The result of `obj.__reduce__`. Unpickling calls `rebuild(handle, *arguments)`."""
    popen = spawning_popen()
    if popen is None:
        return _arrive, (core.session_identity(), rebuild, obj._given_handle, *arguments)
    keep_for(popen, obj)
    return _arrive, (carrier_for(popen), rebuild, obj._handle, *arguments)


def keep_for(popen: Any, obj: Any) -> None:
    """Keep `obj` as long as the parent has the child's Popen object."""
    popen.__dict__.setdefault("_shoal_kept", []).append(obj)


def carrier_for(popen: Any) -> Carrier:
    """The carrier that sends the session to the child; one per child, so one descriptor."""
    carrier = popen.__dict__.get("_shoal_session")
    if carrier is None:
        from multiprocessing.reduction import DupFd

        carrier = Carrier(core.session_identity(), DupFd(core.session_fd()))
        popen.__dict__["_shoal_session"] = carrier
    found: Carrier = carrier
    return found


class Carrier:
    """Unpickling a carrier joins the session and returns the session's identity."""

    def __init__(self, identity: Any, descriptor: Any) -> None:
        self._identity = identity
        self._descriptor = descriptor

    def contents(self) -> tuple[Any, Any]:
        """The arguments of `join`."""
        return self._identity, self._descriptor

    def __reduce__(self) -> tuple[Any, ...]:
        return join, self.contents()


def join(identity: tuple[int, int], descriptor: Any) -> tuple[int, int]:
    """Become a member of the session, unless this process is already a member of a session.

    The descriptor can be used only once: the first of a child's pickles uses it.
    """
    global _arrived_pid
    if _arrived_pid != os.getpid():
        _arrived_pid = os.getpid()
        fd = descriptor.detach()
        try:
            if core.session_identity() is None:
                core.join_session(fd)
        finally:
            os.close(fd)
    return identity


def _arrive(identity: Any, rebuild: Callable[..., Any], handle: int, *arguments: Any) -> Any:
    mine = core.session_identity()
    if mine != identity:
        has = "belongs to another session" if mine else "belongs to no session"
        raise RuntimeError(
            f"a shared object of shoal can't be used here: this process {has} than the one that"
            " sent it. Give it to the process when that is started."
        )
    return rebuild(handle, *arguments)


def announcement() -> dict[str, str]:
    """The environment variable that tells a starting fork server this process's session."""
    identity = core.session_identity()
    if identity is None:
        return {}
    return {_ANNOUNCED: f"{os.getpid()}:{core.session_fd()}:{identity[0]}:{identity[1]}"}


def _join_announced() -> None:
    """Join the announced session: in the fork server, or in its children if the fork server itself
    has not imported this module.
    """
    told = os.environ.pop(_ANNOUNCED, None)
    if told is None or core.session_identity() is not None:
        return
    pid, place, device, inode = map(int, told.split(":"))
    try:
        fd = os.open(f"/proc/{pid}/fd/{place}", os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # the announcing process has ended
        return
    try:
        found = os.fstat(fd)
        if (found.st_dev, found.st_ino) == (device, inode):
            core.join_session(fd)
    finally:
        os.close(fd)


_join_announced()
