# SPDX-License-Identifier: Apache-2.0
"""Whose a named block in /dev/shm is, and the removal of those whose program was killed.

A block that goes with its program carries a record of its *owners*: the process that made it, the
processes which that one comes from, and their resource tracker. While one of them lives the block
is in use; when all are dead nobody is left who would remove it, and the next program that has shoal
does so when it starts. So a block outlives a child that made it for others.

1. The record is on the file before the file has a name: a process killed at any instruction leaves
   either nothing or a file that says whose it is.
2. Nothing is removed on doubt: not a file without a record, of another user, of another process
   namespace (its pids mean nothing here), or whose record cannot be read.
3. A process is its pid and its start time: a pid that was given anew is another process.

The record is an extended attribute (Linux 6.6 and later has them on /dev/shm); before, a symbolic
link beside the file whose target is the text: made at once, as a whole.

Design: docs/design/shared_memory.md
"""

from __future__ import annotations

import os
import sys

FOLDER = "/dev/shm"
_ATTRIBUTE = "user.shoal.owners"
_LINK = ".shoal-owners."  # and the inode's number
_MOST = 40  # owners in a record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_looked = False
_ancestors: list[str] = []
_self: tuple[int, str] = (0, "")


def _start_time(pid: int) -> str | None:
    """In clock ticks after the machine's start; None: there is no such process, or it has ended
    and its parent has not asked for its status (an orphan's may never).
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
    """The processes that this one comes from, as far as shoal knows, and itself last."""
    return [*_ancestors, myself()]


def come_from(those: Iterable[str]) -> None:
    """In a process that has just started afresh: who started it, and whom that one comes from."""
    _ancestors[:0] = [one for one in those if one not in _ancestors]


def _after_fork() -> None:
    _ancestors.append(_self[1])
    myself()  # now: no hook before the next fork, in which a Ctrl-C would be lost


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
    """Write the owners of a file that will be `name` in /dev/shm. Where that cannot be done the
    file is as the standard library's are.
    """
    record = _record()
    try:
        os.setxattr(fd, _ATTRIBUTE, record.encode())
        return
    except OSError:
        pass
    try:
        link = _link_of(os.fstat(fd).st_ino)
        _remove(link)  # of a file that is gone: numbers are given anew
        os.symlink(f"{record}\n{name}", link)
    except OSError:
        pass


def unmark(inode: int) -> None:
    """The file is gone, or has got no name after all."""
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
    """`remove_all`, at most once in a process and what forks from it."""
    global _looked
    if not _looked:
        _looked = True
        remove_all()


def remove_all() -> list[str]:
    """Remove the blocks of dead programs; their names."""
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
            continue  # no record, or gone meanwhile
    return removed


def _remove_linked(link: str) -> list[str]:
    """By a record that is a symbolic link."""
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
