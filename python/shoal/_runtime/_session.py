# SPDX-License-Identifier: Apache-2.0
"""How shared objects and their session travel to other processes.

An object in shared memory pickles as (session, handle). Whoever unpickles it must be a member:

1. Children of fork are members already (the core's fork handlers).
2. A child of spawn or forkserver joins. The session's memory file is passed to it once, whatever
   the number of objects, as a descriptor of the process being spawned; what it joins with is in the
   preparation data, which it reads before it imports the program's main module, and again beside
   each object, for children that somebody else's code prepares.
3. The fork server may make objects itself, in modules that it preloads. So that its children are
   not of a session of its own, it is told ours when it starts: the variable SHOAL_JOIN, there only
   for that moment and only for it, names the memory file's place in this process.
4. Elsewhere in the session (a task, a queue) the handle alone travels.

An object that is passed to a child being spawned is kept by the parent until the parent lets go of
the child's Popen object, so that it can't be freed before it has arrived. One that travels anywhere
else is kept by the process that sent it until that ends (`handle` does so).

Module state: `_arrived_pid`, the process that has used its descriptor of the session.
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
    """The child that is being started right now and for which we pickle, or None."""
    context: Any = sys.modules.get("multiprocessing.context")
    return None if context is None else context.get_spawning_popen()


def reduce_shared(rebuild: Callable[..., Any], obj: Any, *arguments: Any) -> tuple[Any, ...]:
    """What `obj.__reduce__` returns: `rebuild(handle, *arguments)` where it is unpickled."""
    popen = spawning_popen()
    if popen is None:
        return _arrive, (core.session_identity(), rebuild, obj._given_handle, *arguments)
    keep_for(popen, obj)
    return _arrive, (carrier_for(popen), rebuild, obj._handle, *arguments)


def keep_for(popen: Any, obj: Any) -> None:
    """Keep `obj` as long as the parent has the child's Popen object."""
    popen.__dict__.setdefault("_shoal_kept", []).append(obj)


def carrier_for(popen: Any) -> Carrier:
    """What takes the session to the child; one for each child, so one descriptor."""
    carrier = popen.__dict__.get("_shoal_session")
    if carrier is None:
        from multiprocessing.reduction import DupFd

        carrier = Carrier(core.session_identity(), DupFd(core.session_fd()))
        popen.__dict__["_shoal_session"] = carrier
    found: Carrier = carrier
    return found


class Carrier:
    """Joins the session when it is unpickled, and is then the session's identity."""

    def __init__(self, identity: Any, descriptor: Any) -> None:
        self._identity = identity
        self._descriptor = descriptor

    def contents(self) -> tuple[Any, Any]:
        """The arguments of `join`."""
        return self._identity, self._descriptor

    def __reduce__(self) -> tuple[Any, ...]:
        return join, self.contents()


def join(identity: tuple[int, int], descriptor: Any) -> tuple[int, int]:
    """Become a member of the session, unless this process is one of a session already.

    Its descriptor is used up once, by whichever of a child's pickles comes first.
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
    """Our session, for a fork server that starts."""
    identity = core.session_identity()
    if identity is None:
        return {}
    return {_ANNOUNCED: f"{os.getpid()}:{core.session_fd()}:{identity[0]}:{identity[1]}"}


def _join_announced() -> None:
    """In the fork server, and in its children if it made nothing itself."""
    told = os.environ.pop(_ANNOUNCED, None)
    if told is None or core.session_identity() is not None:
        return
    pid, place, device, inode = map(int, told.split(":"))
    try:
        fd = os.open(f"/proc/{pid}/fd/{place}", os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # that process has ended
        return
    try:
        found = os.fstat(fd)
        if (found.st_dev, found.st_ino) == (device, inode):
            core.join_session(fd)
    finally:
        os.close(fd)


_join_announced()
