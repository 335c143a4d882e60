# SPDX-License-Identifier: Apache-2.0
"""Records the owners of named blocks in /dev/shm, and removes blocks whose program was killed.

A block that must be removed with its program has a record of its *owners*: the process that made
it, that process's ancestors, and their resource tracker. While one of them lives, the block is in
use. When all are dead, no process is left that would remove it, and the next program with shoal
removes it at its start. So a block outlives a child that made it for other processes.

1. The file has its record before it has a name: a process killed at any instruction leaves either
   nothing or a file with a record.
2. In doubt nothing is removed: not a file without a record, of another user, of another process
   namespace (its pids mean nothing here), or whose record cannot be read.
3. A process is identified by its pid and start time: a reused pid is another process.

The record is an extended attribute (on /dev/shm from Linux 6.6 on). On older kernels it is a
symbolic link beside the file, whose target is the text: a link is created atomically.

Design: docs/design/shared_memory.md
"""

from __future__ import annotations

import os
import sys

FOLDER = "/dev/shm"
_ATTRIBUTE = "user.shoal.owners"
_LINK = ".shoal-owners."  # followed by the inode number
_MOST = 40  # the most owners in a record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_looked = False
_ancestors: list[str] = []
_self: tuple[int, str] = (0, "")


def _start_time(pid: int) -> str | None:
    """The process's start time, in clock ticks after the machine's start. None: there is no such
    process, or it has ended and was not reaped (an orphan may never be).
    """
    try:
        file = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            fields = os.read(file, 4096).rpartition(b")")[2].split()
        finally:
            os.close(file)
        return None if fields[0] in (b"Z", b"X") else fields[19].decode()
    except (OSError, IndexError):
        return None


def _identity(pid: int) -> str:
    return f"{pid}.{_start_time(pid) or 0}"


def myself() -> str:
    global _self
    pid = os.getpid()
    if _self[0] != pid:
        _self = (pid, _identity(pid))
    return _self[1]


def lineage() -> list[str]:
    """The ancestors of this process that shoal knows, then this process itself."""
    return [*_ancestors, myself()]


def come_from(those: Iterable[str]) -> None:
    """In a fresh process: record the lineage of the process that started it."""
    _ancestors[:0] = [one for one in those if one not in _ancestors]


def _after_fork() -> None:
    _ancestors.append(_self[1])
    myself()  # cached now, because a Ctrl-C in a before-fork hook would be lost


myself()
os.register_at_fork(after_in_child=_after_fork)


def is_alive(identity: str) -> bool:
    pid, _, start = identity.partition(".")
    return pid.isdecimal() and _start_time(int(pid)) == start


def has_living_ancestor() -> bool:
    return any(map(is_alive, _ancestors))


def _namespace() -> str:
    try:
        return str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        return "?"


def _record() -> str:
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    tracker_pid = tracker._resource_tracker._pid if tracker is not None else None
    owners = lineage()
    if tracker_pid:
        owners.append(_identity(tracker_pid))
    return " ".join([_namespace(), *owners[-_MOST:]])


def _link_of(inode: int) -> str:
    return f"{FOLDER}/{_LINK}{inode}"


def mark(fd: int, name: str) -> None:
    """Write the record of a file that will be `name` in /dev/shm. If that is not possible, the file
    stays without a record, like the standard library's.
    """
    record = _record()
    try:
        os.setxattr(fd, _ATTRIBUTE, record.encode())
        return
    except OSError:
        pass
    try:
        link = _link_of(os.fstat(fd).st_ino)
        _remove(link)  # an old link, of a removed file: inode numbers are reused
        os.symlink(f"{record}\n{name}", link)
    except OSError:
        pass


def unmark(inode: int) -> None:
    """Remove the link of a file that was removed or never got a name."""
    _remove(_link_of(inode))


def _remove(path: str) -> bool:
    try:
        os.unlink(path)
    except OSError:
        return False
    return True


def _is_dead(record: str) -> bool:
    namespace, *owners = record.split()
    return namespace == _namespace() and bool(owners) and not any(map(is_alive, owners))


def remove_once() -> None:
    """Call `remove_all`, at most once in a process and its forked children."""
    global _looked
    if not _looked:
        _looked = True
        remove_all()


def remove_all() -> list[str]:
    """Remove the blocks of dead programs, and return their names."""
    removed: list[str] = []
    try:
        entries = list(os.scandir(FOLDER))
    except OSError:
        return removed
    user = os.geteuid()
    for entry in entries:
        try:
            if entry.name.startswith(_LINK):
                removed += _remove_linked(entry.path)
            elif entry.is_file(follow_symlinks=False):
                if entry.stat(follow_symlinks=False).st_uid != user:
                    continue
                record = os.getxattr(entry.path, _ATTRIBUTE, follow_symlinks=False).decode()
                if _is_dead(record) and _remove(entry.path):
                    removed.append(entry.name)
        except (OSError, ValueError):
            continue  # no record, or already removed
    return removed


def _remove_linked(link: str) -> list[str]:
    """Remove the file of a record that is a symbolic link, if its program is dead."""
    if os.lstat(link).st_uid != os.geteuid():
        return []
    record, _, name = os.readlink(link).partition("\n")
    if not name or "/" in name or not _is_dead(record):
        return []
    path, inode = f"{FOLDER}/{name}", int(link.rpartition(".")[2])
    try:
        ours = os.lstat(path).st_ino == inode
    except OSError:
        ours = False
    gone = ours and _remove(path)
    _remove(link)
    return [name] if gone else []
