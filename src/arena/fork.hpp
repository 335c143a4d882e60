// SPDX-License-Identifier: Apache-2.0
//
// Fork handlers: what happens to members when user code forks. They need the only process-global
// state of the core: the list of this process's members.
//
// 1. A fork is a snapshot. Before it, the parent makes its views of the counted blocks that it
//    holds private (arena/views.cpp), and prepares a slot for the child: born, with the forking
//    member as `parent`. The slot's bit is set in the record of each of these blocks and of each
//    shared block, so that nothing the child inherits is freed while the child can use it. If there
//    is no slot, the child gets copies of the counted blocks, and it can neither use the shared
//    ones nor join the session.
// 2. Until the child is live, only its birth lock shows that it may be alive: a lock on a byte of
//    the memory file, tied to a descriptor that the child inherits. So the child loses nothing when
//    the parent dies right after the fork, or when the child is stopped before its first
//    instruction.
// 3. The child handler allocates nothing and takes no lock that another thread of the parent may
//    have held.
// 4. vfork, posix_spawn and subprocess run no handlers. A failed fork runs the prepare and parent
//    handlers: the views stay private, and the parent handler reaps the prepared slot, since the
//    birth lock is free. Without a birth lock it does so only if this process has no child at all;
//    otherwise the slot is reaped when the time limit of the child has passed.
// 5. A child in another pid namespace cannot be a member (arena.hpp). It can use what it has
//    inherited: those blocks stay as long as the child holds its birth lock, that is until it ends.
// Design: docs/design/arena.md
#pragma once

namespace shoal::arena {

class Member;

void register_for_fork(Member& member);
void unregister_for_fork(Member& member) noexcept;

}  // namespace shoal::arena
