// SPDX-License-Identifier: Apache-2.0
//
// RunsLock: the arena's one lock, over the page tables. Owner-aware: a waiter takes the lock over
// from a dead holder and completes the change that the holder had begun (RunIntent). Held for
// microseconds, never across a system call that can take long; a holder never waits for a
// process-local lock. Lock word: 0 is free; else {unused:20 | high 12 bits of the incarnation:12 |
// waiters:1 | unused:1 | its low 30 bits:30}. Sleepers wait on the low half, which the kernel
// compares; the waiters bit is in it. Threads of one
// member exclude each other as well. Lock order: Member::reaping_, then RunsLock. A thread that
// takes the RunsLock never holds Member::local_.
// Design: docs/design/arena.md
#pragma once

#include "arena/arena.hpp"

namespace shoal::arena {

class RunsLock {
 public:
  RunsLock(Arena& arena, Incarnation me) noexcept;
  ~RunsLock();
  RunsLock(const RunsLock&) = delete;
  RunsLock& operator=(const RunsLock&) = delete;

 private:
  void acquire_slowly() noexcept;
  bool take_over(uint64_t seen) noexcept;

  Arena& arena_;
  const uint64_t me_;  // as a lock word
};

}  // namespace shoal::arena
