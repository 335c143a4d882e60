// SPDX-License-Identifier: Apache-2.0
//
// RunAllocator: page runs for one member. Finds free pages, reserves memory behind them within the
// session's limit and those of the cgroups, and gives memory back that has been free for a while.
//
// 1. A run that needs memory is first taken as MEMBER(me), then filled outside of the lock in steps
//    of at most 16 MB; each step sets its warm bits. A death in between leaves a run that the
//    reaper frees.
// 2. Pages lose their warm bit before their memory is given back, so a warm page always has memory
//    behind it.
// 3. Callers hold no process-local lock: these functions wait for the RunsLock.
// Design: docs/design/arena.md
#pragma once

#include <cstdint>
#include <string>

#include "arena/arena.hpp"

namespace shoal::arena {

class RunAllocator {
 public:
  RunAllocator(Arena& arena, Incarnation me) noexcept : arena_(arena), me_(me) {}

  // Takes a warm run as MEMBER(me); returns its first page. Throws MemoryExhausted.
  uint64_t allocate(uint64_t pages);
  // Frees a run that is MEMBER(me) or DYING(me).
  void release(uint64_t first, uint64_t pages) noexcept;
  // Gives back the memory of free pages that were freed at least `older_than_ms` ago; returns the
  // bytes given back.
  uint64_t purge(uint64_t older_than_ms, uint64_t most_bytes = UINT64_MAX);

 private:
  struct Taken {
    uint64_t first;
    uint64_t pages;
    bool warm;
    int error = 0;  // if `first` is kNoPage: errno of growing the tables; 0: the reserve is full
  };
  struct Shortage {
    bool any = false;
    uint64_t headroom = 0;
    uint64_t limit = 0;
    std::string which;
  };

  static Shortage refused(int error);
  Taken take(uint64_t pages, bool with_extra);
  bool extend_frontier_locked(uint64_t needed) noexcept;
  bool fill(uint64_t first, uint64_t pages, Shortage* shortage);
  bool fill_step(uint64_t first, uint64_t pages, Shortage* shortage);
  Shortage find_shortage(uint64_t bytes) const;
  void set_warm(uint64_t first, uint64_t pages, bool warm) noexcept;
  uint64_t growth_extra(uint64_t pages) const noexcept;
  uint64_t take_purgeable(uint64_t older_than_ms, uint64_t* cursor, uint64_t* pages);
  [[noreturn]] void exhausted(uint64_t pages, const Shortage& shortage) const;

  Arena& arena_;
  const Incarnation me_;
};

// Milliseconds of the machine's monotonic clock, the same in all processes.
uint64_t now_ms() noexcept;

}  // namespace shoal::arena
