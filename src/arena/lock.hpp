// SPDX-License-Identifier: Apache-2.0
//
// RunsLock: the arena's one lock, over the page tables. Owner-aware: a waiter takes the lock over
// from a dead holder and completes the change that the holder had begun (RunIntent). Held for
// microseconds, never across a system call that can take long; a holder never waits for a
// process-local lock. Lock word: {waiters:1 | unused:1 | incarnation:30}; 0 = free. Threads of one
// member exclude each other as well. Lock order: Member::reaping_, then RunsLock. A thread that
// takes the RunsLock never holds Member::local_.
// Design: docs/design/arena.md
#pragma once

#include "arena/arena.hpp"

namespace shoal::arena {

inline constexpr uint32_t kLockWaiters = uint32_t{1} << 31;
inline constexpr uint32_t kLockOwner = (uint32_t{1} << 30) - 1;

class RunsLock {
 public:
  RunsLock(Arena& arena, Incarnation me) noexcept;
  ~RunsLock();
  RunsLock(const RunsLock&) = delete;
  RunsLock& operator=(const RunsLock&) = delete;

 private:
  void acquire_slowly() noexcept;
  bool take_over(uint32_t seen) noexcept;

  Arena& arena_;
  const Incarnation me_;
};

}  // namespace shoal::arena
