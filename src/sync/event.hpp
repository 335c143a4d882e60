// SPDX-License-Identifier: Apache-2.0
//
// Event: a flag that members wait for. set() and clear() never sleep. Nothing allocates or throws
// after the first use by a member.
//
// EventState:  word    31..2 epoch: how often it was set    1 WAITERS    0 SET
// Invariants:
// 1. Each change from clear to set changes the epoch, so a thread that slept through the change
//    returns even if the event is clear again when it wakes.
// 2. A thread that sleeps on `word` has seen it with WAITERS and without SET. set() clears WAITERS
//    and wakes all. A woken waiter that dies takes nothing from the others.
// 3. A sleeper checks the event at each tick, at the latest after kLastTickNs. So it returns even
//    if the member that set the event is killed or stopped before the wake-up.
// No wake-up is lost: sync/wait.hpp, with P1 and P2 in one compare-exchange.
// Design: docs/design/sync.md
#pragma once

#include <cstdint>

#include "arena/arena.hpp"
#include "os/atomic.hpp"
#include "sync/wait.hpp"

namespace shoal::sync {

struct alignas(64) EventState {
  os::Atomic<uint32_t> word;
  uint32_t magic;
  uint32_t padding[10];
  uint64_t record[2];  // of the shared block (arena/record.hpp)
};
static_assert(sizeof(EventState) == 64);

class Event {
 public:
  static constexpr uint32_t kMagic = 0x746e7665;  // "evnt"

  static void create(arena::Arena& arena, arena::Handle handle) noexcept;
  // Throws CorruptArena if there is no event at `handle`.
  Event(arena::Arena& arena, arena::Handle handle);
  // Skips the checks: the caller holds the block and has checked it before.
  Event(arena::Arena& arena, EventState& known) noexcept
      : state_(&known), handle_(arena.handle_of(&known)) {}

  void set(arena::Member& member);
  void clear() noexcept;
  [[nodiscard]] bool is_set() const noexcept { return (state_->word.load() & kSet) != 0; }
  [[nodiscard]] WaitResult wait(int64_t deadline_ns = kForever) {
    return wait(listen(), deadline_ns);
  }
  // ok: set, or was set since `first` = listen(). A wait that is made in several calls takes
  // `first` once, so that it also sees what happens between two of them.
  [[nodiscard]] uint32_t listen() const noexcept { return state_->word.load(); }
  [[nodiscard]] WaitResult wait(uint32_t first, int64_t deadline_ns);
  [[nodiscard]] arena::Handle handle() const noexcept { return handle_; }

  // The hook for HeldKind::event.
  static void reap(arena::Arena& arena, arena::Member& reaper, arena::Incarnation dead,
                   arena::Handle handle);

 private:
  static constexpr uint32_t kSet = 1;
  static constexpr uint32_t kWaiters = 2;
  static constexpr uint32_t kEpoch = 4;

  EventState* state_;
  arena::Handle handle_;
};

}  // namespace shoal::sync
