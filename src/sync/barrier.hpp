// SPDX-License-Identifier: Apache-2.0
//
// Barrier: a fixed number of parties (threads of members) wait until all have arrived, over and
// over. A party that dies while it waits, while it runs the action or in between breaks the
// barrier: the others are told instead of waiting for it. Any thread of any member may call it.
// wait() sleeps, and arrive() while an action runs; the other operations only for the guard, which
// is held for one pass over the slots. Nothing allocates after the first use by a member.
//
//     arrival = barrier.arrive(me, has_action, deadline)
//     arrival.came == last:   run the action; finish(me, arrival, it succeeded)
//     arrival.came == waits:  while (barrier.wait(me, arrival, deadline) == interrupted)
//                                 run signal handlers;
//                             outcome = barrier.end_wait(me, arrival, the last result of wait())
//
// BarrierState, then `capacity` slots:
//   guard       a mutex; locked for every change except those by reapers and ticks of waiters
//   phase       0 filling   1 acting: the last party runs the action   2 broken; a futex word
//   generation  how often it has opened or was reset      actor  the member that runs the action
//   slots       one word a waiter:  63..32 incarnation   31..2 generation   1..0 state
//               0 empty   1 waiting   2 released   3 broken
// Invariants:
// 1. The waiter sets its slot from empty to waiting (with the guard). The thread that opens or
//    breaks the barrier sets it from waiting to released or broken. The waiter empties it; after
//    the waiter's death, the reaper or a party that needs a slot does.
// 2. The thread that opens the barrier holds the guard until all slots of the generation are
//    released. If it dies, the guard is DIED, and the next thread that locks it breaks the barrier;
//    so do reapers.
// 3. A reaper takes no lock: it stores phase = broken, then marks the waiting slots. An arriving
//    party stores its slot, then looks at the phase. Both are seq_cst, so one sees the other.
// 4. Waiters check periodically whether the members that they depend on live: the other waiters,
//    the actor, the owner of the guard.
// Design: docs/design/sync.md
#pragma once

#include <cstdint>

#include "arena/arena.hpp"
#include "os/atomic.hpp"
#include "sync/mutex.hpp"
#include "sync/wait.hpp"

namespace shoal::sync {

struct alignas(64) BarrierState {
  MutexState guard;
  os::Atomic<uint32_t> phase;
  os::Atomic<uint32_t> generation;
  os::Atomic<uint32_t> actor;
  uint32_t parties;
  uint32_t capacity;
  uint32_t magic;
  uint32_t padding[10];
};
static_assert(sizeof(BarrierState) == 128);

class Barrier {
 public:
  static constexpr uint32_t kMagic = 0x72726162;  // "barr"

  enum class Came {
    broken,
    last,    // run the action, then finish()
    passed,  // this party was the last and there is no action: all are released
    waits,
    timed_out,    // before this party had a slot; nothing was changed
    interrupted,  // likewise
  };
  struct Arrival {
    Came came;
    uint32_t index;  // 0 for the first party
    os::Atomic<uint64_t>* slot;
    uint64_t word;
    int held;
  };
  enum class Left { passed, broken, interrupted };

  static size_t size_for(uint32_t parties) noexcept;
  static void create(arena::Arena& arena, arena::Handle handle, uint32_t parties) noexcept;
  // Throws CorruptArena if there is no barrier at `handle`.
  Barrier(arena::Arena& arena, arena::Handle handle);
  // Skips the checks: the caller holds the block and has checked it before.
  Barrier(arena::Arena& arena, BarrierState& known) noexcept
      : arena_(&arena), state_(&known), handle_(arena.handle_of(&known)) {}

  [[nodiscard]] Arrival arrive(arena::Member& member, bool has_action, int64_t deadline_ns);
  // After `last`. False: the barrier was broken or reset while the action ran, or this call broke
  // it because the action failed.
  bool finish(arena::Member& member, const Arrival& arrival, bool succeeded);
  [[nodiscard]] WaitResult wait(arena::Member& member, const Arrival& arrival, int64_t deadline_ns);
  // timed_out breaks the barrier unless it has opened; interrupted leaves it as if this party had
  // never arrived.
  Left end_wait(arena::Member& member, const Arrival& arrival, WaitResult how);

  void abort(arena::Member& member);
  void reset(arena::Member& member);
  [[nodiscard]] uint32_t parties() const noexcept { return state_->parties; }
  [[nodiscard]] uint32_t waiting() const noexcept;
  [[nodiscard]] bool broken() const noexcept { return state_->phase.load() == kBroken; }

  // The hook for HeldKind::barrier.
  static void reap(arena::Arena& arena, arena::Member& reaper, arena::Incarnation dead,
                   arena::Handle handle);

 private:
  using Slot = os::Atomic<uint64_t>;
  static constexpr uint32_t kFilling = 0;
  static constexpr uint32_t kActing = 1;
  static constexpr uint32_t kBroken = 2;
  static constexpr uint64_t kState = 3;
  static constexpr uint64_t kWaiting = 1;
  static constexpr uint64_t kReleased = 2;
  static constexpr uint64_t kBrokenSlot = 3;

  class Guard;
  [[nodiscard]] Slot* slots() const noexcept { return reinterpret_cast<Slot*>(state_ + 1); }
  [[nodiscard]] uint32_t count_waiting(uint32_t generation) const noexcept;
  Slot* free_slot(arena::Member& member) noexcept;
  Arrival take_place_locked(arena::Member& member, bool has_action, int held);
  void open_locked() noexcept;
  void break_it() noexcept;
  void mark_waiting(uint64_t as, bool all_generations) noexcept;
  void set_phase(uint32_t phase) noexcept;
  void look_for_dead(arena::Member& member) noexcept;
  void drop_dead(arena::Incarnation dead) noexcept;

  arena::Arena* arena_;
  BarrierState* state_;
  arena::Handle handle_;
};

}  // namespace shoal::sync
