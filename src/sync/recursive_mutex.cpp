// SPDX-License-Identifier: Apache-2.0
#include "sync/recursive_mutex.hpp"

#include "os/process.hpp"
#include "testing/kill_point.hpp"

namespace shoal::sync {

uint64_t RecursiveMutex::this_thread(arena::Member& member) noexcept {
  // Linux has no thread ids of more than 22 bits. In the child of a fork, the incarnation differs.
  constexpr unsigned kThreadBits = 22;
  thread_local uint64_t name = 0;
  const arena::Incarnation me = member.incarnation();
  if (name >> kThreadBits != me)
    name = me << kThreadBits | static_cast<uint64_t>(os::own_thread_id());
  return name;
}

bool RecursiveMutex::is_mine(arena::Member& member) const noexcept {
  // order: relaxed; equal only if this thread wrote it (invariant 1)
  return mutex_.state().thread.load(os::relaxed) == this_thread(member);
}

void RecursiveMutex::set_depth(arena::Member& member, uint32_t depth) noexcept {
  // COMMIT(recursive_mutex.depth): killed before or after: the lock is taken back.
  // order: relaxed, both; other threads only compare them; owners are ordered by the lock
  mutex_.state().depth.store(depth, os::relaxed);
  mutex_.state().thread.store(depth == 0 ? 0 : this_thread(member), os::relaxed);
  SHOAL_KILL_POINT("recursive_mutex.depth");
}

Locked RecursiveMutex::lock(arena::Member& member, int64_t deadline_ns) {
  if (is_mine(member)) {
    mutex_.state().depth.fetch_add(1);
    return Locked::ok;
  }
  const Locked result =
      deadline_ns == 0 ? mutex_.try_lock(member) : mutex_.lock(member, deadline_ns);
  if (is_locked(result)) {
    // order: relaxed, both; only the owner writes it, and owners are ordered by the lock
    mutex_.state().locks.store(mutex_.state().locks.load(os::relaxed) + 1, os::relaxed);
    set_depth(member, 1);
  }
  return result;
}

Unlocked RecursiveMutex::unlock(arena::Member& member) {
  if (!is_mine(member)) return Unlocked::not_locked;
  if (mutex_.state().depth.load() > 1) {
    mutex_.state().depth.fetch_sub(1);
    return Unlocked::ok;
  }
  set_depth(member, 0);
  return mutex_.unlock(member);
}

uint32_t RecursiveMutex::unlock_all(arena::Member& member) {
  if (!is_mine(member)) return 0;
  const uint32_t depth = mutex_.state().depth.load();
  set_depth(member, 0);
  mutex_.unlock(member);
  return depth;
}

}  // namespace shoal::sync
