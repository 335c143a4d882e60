// SPDX-License-Identifier: Apache-2.0
//
// Fork handlers: what becomes of members when user code forks. The only process-global state of the
// core: the list of this process's members, which pthread_atfork handlers need.
//
// 1. A fork is a snapshot. Before it, the parent makes its views of the counted blocks that it
//    holds private (arena/views.cpp), and prepares a slot for the child: born, with the forking
//    member as `parent`. The slot's bit is set on each of these blocks and on each shared block, so
//    that nothing the child inherits can be freed under it.
// 2. Until the child is live, it may be found alive by its birth lock alone: a lock on a byte of
//    the memory file that goes with an inherited descriptor. So a parent that dies right after
//    the fork, and a child that is stopped before its first instruction, cost the child nothing.
// 3. The child handler allocates nothing and takes no lock that another thread of the parent may
//    have held.
// 4. vfork, posix_spawn and subprocess run no handlers; a failed fork runs prepare and parent: the
//    views stay private, and the prepared slot is reaped by whoever looks next.
// Design: docs/design/arena.md
#pragma once

namespace shoal::arena {

class Member;

void register_for_fork(Member& member);
void unregister_for_fork(Member& member) noexcept;

}  // namespace shoal::arena
