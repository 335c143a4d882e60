// SPDX-License-Identifier: Apache-2.0
//
// Barrier: a fixed number of parties (threads of members) wait until all have arrived, over and
// over. A party that dies in the barrier (while it arrives, waits, runs the action or leaves)
// breaks it: the other parties return with the result `broken` instead of waiting for it. (The
// barrier does not know of a party that dies elsewhere.) Any thread of any member may call it.
// wait() sleeps, and so does arrive() while an action runs. A stopped member delays other members
// only if they wait for its arrival, or for the end of its action. Nothing allocates after the
// first use by a member.
//
//     arrival = barrier.arrive(me, has_action, deadline)
//     arrival.came == last:   run the action; finish(me, arrival, it succeeded)
//     arrival.came == waits:  while (barrier.wait(me, arrival, deadline) == interrupted)
//                                 run signal handlers;
//                             outcome = barrier.end_wait(me, arrival, the last result of wait())
//
// BarrierState, then `capacity` slots:
//   phase   63..32 arrived   31..3 generation   2..0 stage; its low half is the futex word
//           stages: 0 filling   1 acting: the last party runs the action   2 opening
//                   3 resetting   4 broken
//   slots   one word a party:  63..32 short number of the member   30..2 generation   1..0 state
//           0 empty   1 waiting   2 released   3 broken
//
// Transitions of phase, each one compare-exchange:
//   {n, g, filling}          -> {n+1, g, filling}   a party arrives; it has a waiting slot of g
//   {parties-1, g, filling}  -> {parties, g, acting or opening}   the last one, likewise
//   {n, g, filling}          -> {n-1, g, filling}   a party withdraws (a signal ended its wait)
//   {n, g, acting}           -> {n, g, opening}     the action has succeeded
//   {n, g, filling, acting}  -> {n, g, broken}      abort, time-out, failed action, dead party
//   {n, g, all but opening}  -> {n, g, resetting}   reset
//   {n, g, opening, resetting} -> {0, g+1, filling} once no slot of g is waiting
// Invariants:
// 1. The party sets its slot from empty to waiting. In opening, resetting and broken any member
//    sets the waiting slots of the generation to released or broken: settle(). The party empties
//    its slot; after its death, a member that has broken the barrier does.
// 2. A member that finds the stage opening, resetting or broken runs settle(), which may be
//    repeated, and interrupted at any point. So a member that is killed or stopped while it opens
//    the barrier delays no other member, and all parties of a generation that opens pass.
// 3. A member that was stopped and resumes late changes only words that still have the value that
//    it read: the phase of that generation, and slots of that generation. So it neither breaks nor
//    opens a later generation.
// 4. At each tick a waiter checks the phase, and whether one other waiter is alive: first the
//    waiter in the next slot, at the next tick the one after that. So a death is noticed by the
//    waiter in the slot before it or, if that waiter is stopped, a tick later by the waiter before
//    that. With more than kLookers parties, a waiter checks the others only in some of its ticks.
// 5. One generation costs each party a constant number of accesses, and one pass over the slots.
// Design: docs/design/sync.md
#pragma once

#include <cstdint>

#include "arena/arena.hpp"
#include "os/atomic.hpp"
#include "sync/wait.hpp"

namespace shoal::sync {

struct alignas(64) BarrierState {
  os::Atomic<uint64_t> phase;
  uint32_t parties;
  uint32_t capacity;
  uint32_t magic;
  uint32_t padding[11];
};
static_assert(sizeof(BarrierState) == 64);

class Barrier {
 public:
  static constexpr uint32_t kMagic = 0x72726162;  // "barr"

  enum class Came {
    broken,
    last,    // run the action, then finish()
    passed,  // this party was the last and there is no action: all are released
    waits,
    timed_out,    // before this party had arrived; nothing has changed
    interrupted,  // likewise
  };
  struct Arrival {
    Came came;
    uint32_t index;  // 0 for the first party
    os::Atomic<uint64_t>* slot;
    uint64_t word;  // the slot's value while waiting
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
  [[nodiscard]] bool broken() const noexcept;

  // The hook for HeldKind::barrier.
  static void reap(arena::Arena& arena, arena::Member& reaper, arena::Incarnation dead,
                   arena::Handle handle);

 private:
  using Slot = os::Atomic<uint64_t>;
  enum class Stage : uint64_t { filling, acting, opening, resetting, broken };
  struct Phase;
  static constexpr uint32_t kLookers = 64;

  [[nodiscard]] Slot* slots() const noexcept { return reinterpret_cast<Slot*>(state_ + 1); }
  [[nodiscard]] os::Atomic<uint32_t>& futex_word() const noexcept;
  [[nodiscard]] Phase phase() const noexcept;
  bool advance(Phase from, Phase to) noexcept;
  void settle(Phase seen) noexcept;
  void end_generation(uint32_t generation, Stage stage) noexcept;
  Slot* claim_slot(Phase seen, uint64_t word) noexcept;
  bool join(bool has_action, Arrival& arrival) noexcept;
  bool withdraw(uint32_t generation) noexcept;
  [[nodiscard]] bool is_its_turn(uint32_t index) const noexcept;
  void look_for_dead(arena::Member& member, uint32_t* last_looked_at) noexcept;
  [[nodiscard]] bool must_break_for(arena::Incarnation member) const noexcept;
  void drop_dead(arena::Incarnation dead) noexcept;

  arena::Arena* arena_;
  BarrierState* state_;
  arena::Handle handle_;
};

}  // namespace shoal::sync
