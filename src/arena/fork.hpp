// SPDX-License-Identifier: Apache-2.0
//
// Fork handlers: what becomes of members when user code forks. The only process-global state of the
// core: the list of this process's members, which pthread_atfork handlers need.
//
// 1. Before the fork the parent prepares, only if it holds counted or shared blocks, a slot for the
// child (born, parent = me) whose
//    bit is set on each of them, so that nothing the child inherits can be freed under it.
// 2. In the child each inherited counted block becomes a private view: parent and child cannot see
// each other's later
//    writes (but the child sees the parent's later writes to pages that it has not written itself).
// 3. The child handler allocates nothing and takes no lock that another thread of the parent may
// have held.
// 4. vfork, posix_spawn and subprocess run no handlers; a failed fork runs prepare and parent: the
// prepared slot is
//    reaped after 30 s or with the parent.
// Design: docs/design/arena.md
#pragma once

namespace shoal::arena {

class Member;

void register_for_fork(Member& member);
void unregister_for_fork(Member& member) noexcept;

}  // namespace shoal::arena
