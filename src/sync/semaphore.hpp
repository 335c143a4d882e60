// SPDX-License-Identifier: Apache-2.0
//
// Semaphore: a count of permits, shared by members. Any member may release. acquire() sleeps,
// release() never does. Nothing allocates or throws after the first use by a member.
//
// A permit has no owner: a permit that a member had acquired when it died stays acquired, as with
// the standard library's semaphore. So a call that finds no permit has no owner to check.
//
// SemaphoreState:  word    31 WAITERS   30..0 permits            limit   most permits, >= 1
// Invariants:
// 1. 0 <= permits <= limit.
// 2. A thread that sleeps on `word` has seen it with WAITERS and no permit. WAITERS is cleared only
//    together with a wake of all.
// 3. A sleeper checks for a permit at each tick, at the latest after kLastTickNs. So permits get
//    used even if the releaser, or the sleeper that it has woken, is killed or stopped at any
//    point. If an agent reaps the dead member, held words (sync/holds.hpp) make that immediate.
// Transitions, each one compare-exchange:
//   acquire  n -> n-1 if n > 0      0 -> 0|WAITERS, then sleep on that
//   release  n -> n+k, then wake k if WAITERS; if fewer slept: clear WAITERS, wake all
// No wake-up is lost: sync/wait.hpp, with P1 and P2 in one compare-exchange.
// Design: docs/design/sync.md
#pragma once

#include <cstdint>

#include "arena/arena.hpp"
#include "os/atomic.hpp"
#include "sync/wait.hpp"

namespace shoal::sync {

struct alignas(64) SemaphoreState {
  os::Atomic<uint32_t> word;
  uint32_t limit;
  uint32_t magic;
  uint32_t padding[9];
  uint64_t record[2];  // of the shared block (arena/record.hpp)
};
static_assert(sizeof(SemaphoreState) == 64);

class Semaphore {
 public:
  static constexpr uint32_t kMagic = 0x616d6573;  // "sema"
  static constexpr uint32_t kMaxPermits = (1u << 31) - 1;

  static void create(arena::Arena& arena, arena::Handle handle, uint32_t permits,
                     uint32_t limit = kMaxPermits) noexcept;
  // Throws CorruptArena if there is no semaphore at `handle`.
  Semaphore(arena::Arena& arena, arena::Handle handle);
  // Skips the checks: the caller holds the block and has checked it before.
  Semaphore(arena::Arena& arena, SemaphoreState& known) noexcept
      : state_(&known), handle_(arena.handle_of(&known)) {}

  [[nodiscard]] bool try_acquire() noexcept;
  [[nodiscard]] WaitResult acquire(arena::Member& member, int64_t deadline_ns = kForever);
  // False, with nothing changed, if there would be more than `limit` permits.
  [[nodiscard]] bool release(arena::Member& member, uint32_t count = 1);

  [[nodiscard]] uint32_t permits() const noexcept { return state_->word.load() & ~kWaiters; }
  [[nodiscard]] arena::Handle handle() const noexcept { return handle_; }

  // The hook for HeldKind::semaphore: wakes all sleepers, since nobody knows how many the dead
  // member had still to wake.
  static void reap(arena::Arena& arena, arena::Member& reaper, arena::Incarnation dead,
                   arena::Handle handle);

 private:
  static constexpr uint32_t kWaiters = 1u << 31;
  void wake(uint32_t word_after, uint32_t count) noexcept;

  SemaphoreState* state_;
  arena::Handle handle_;
};

}  // namespace shoal::sync
