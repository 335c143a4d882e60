// SPDX-License-Identifier: Apache-2.0
//
// RecursiveMutex: a Mutex that its owner thread may lock again. Same state, same promises about
// death; it belongs to a thread, and only that thread may unlock it.
//
// Besides Mutex's invariants:
// 1. Only the member that has the lock writes `thread` and `depth`. `thread` names the calling
//    thread only if that thread has the lock, so a racy read of it decides correctly. depth >= 1
//    while thread != 0.
// 2. The owner writes thread = 0 before it unlocks. The next member that takes the lock after a
//    death overwrites what the dead owner left. In the child of a fork no thread has the name of a
//    thread of its parent, since the name contains the member's incarnation.
// Design: docs/design/sync.md
#pragma once

#include "sync/mutex.hpp"

namespace shoal::sync {

class RecursiveMutex {
 public:
  static void create(arena::Arena& arena, arena::Handle handle) noexcept {
    Mutex::create(arena, handle);
  }
  RecursiveMutex(arena::Arena& arena, arena::Handle handle) : mutex_(arena, handle) {}
  RecursiveMutex(arena::Arena& arena, MutexState& known) noexcept : mutex_(arena, known) {}

  // busy if it is not free and deadline_ns is 0.
  Locked lock(arena::Member& member, int64_t deadline_ns = kForever);
  // not_locked if this thread does not have it.
  Unlocked unlock(arena::Member& member);
  // For conditions: unlocks it however often this thread has locked it. Returns how often; 0 if the
  // thread does not have it.
  uint32_t unlock_all(arena::Member& member);
  void set_depth(arena::Member& member, uint32_t depth) noexcept;

  [[nodiscard]] bool is_mine(arena::Member& member) const noexcept;
  [[nodiscard]] uint32_t depth() const noexcept { return mutex_.state().depth.load(); }
  [[nodiscard]] const Mutex& mutex() const noexcept { return mutex_; }
  [[nodiscard]] arena::Handle handle() const noexcept { return mutex_.handle(); }

 private:
  static uint64_t this_thread(arena::Member& member) noexcept;
  Mutex mutex_;
};

}  // namespace shoal::sync
