// SPDX-License-Identifier: Apache-2.0
//
// Condition: members wait to be notified. A call of notify() reaches only waiters whose
// begin_wait() had begun before it, oldest first. The notification of a waiter that dies goes to
// the waiter that is the oldest when the death is noticed; that waiter may have begun to wait after
// notify(). A condition does not know the lock that it is used with:
//     ticket = condition.begin_wait(me);  lock.unlock(me);
//     while (condition.wait(ticket, deadline) == interrupted) run signal handlers;
//     notified = condition.end_wait(me, ticket);  lock.lock(me);
// begin_wait() may allocate (and throw MemoryExhausted) when more than 60 threads wait at the same
// time; nothing else allocates. Only wait() sleeps.
//
// ConditionState: a table of waiters, chained to further tables (blocks whose owner is the block of
// the first table).
//   tickets  the next ticket (first table only)       more  handle of the next table, 0 = none
//   slots    one word a waiter:  63..32 short number of the member   31..2 ticket   1..0 state
//            0 empty    1 waiting    2 notified
// Invariants:
// 1. Transitions of a slot, each one read-modify-write: by the waiter, empty -> waiting and waiting
//    or notified -> empty; by a notifier, waiting -> notified; by the reaper of a dead waiter,
//    waiting or notified -> empty, and for a notified one it first notifies another waiter. A
//    waiter whose tick finds another waiter dead does what the reaper does.
//    A slot has the same word again only after its waiter's member slot has had 2^18 lives and the
//    tickets have wrapped around. So the exchange of a late thread fails.
// 2. A waiter sleeps on the low half of its own slot, which changes with every transition, so no
// other thread can take its wake-up.
// 3. Tables are added, never removed, while the condition lives.
// 4. Every sleeping waiter checks all slots at each tick, at the latest after kLastTickNs. So a
//    notification reaches a waiter even if the notifier or the notified waiter is killed or the
//    notifier is stopped at any point, all other members sleep, and no member reaps. (A waiter that
//    is stopped keeps its notification.)
// Design: docs/design/sync.md
#pragma once

#include <cstdint>

#include "arena/arena.hpp"
#include "os/atomic.hpp"
#include "sync/holds.hpp"
#include "sync/wait.hpp"

namespace shoal::sync {

struct alignas(64) ConditionState {
  static constexpr int kSlots = 60;
  os::Atomic<uint32_t> tickets;
  uint32_t magic;
  os::Atomic<uint64_t> more;
  os::Atomic<uint64_t> slots[kSlots];
  uint64_t record[2];  // of the shared block (arena/record.hpp)
};
static_assert(sizeof(ConditionState) == 512);

class Condition {
 public:
  static constexpr uint32_t kMagic = 0x646e6f63;  // "cond"

  struct Ticket {
    os::Atomic<uint64_t>* slot;
    uint64_t word;  // the slot's value while waiting
    int held;
    Holds* holds;
  };

  static void create(arena::Arena& arena, arena::Handle handle) noexcept;
  // Throws CorruptArena if there is no condition at `handle`.
  Condition(arena::Arena& arena, arena::Handle handle);
  // Skips the checks: the caller holds the block and has checked it before.
  Condition(arena::Arena& arena, ConditionState& known) noexcept
      : arena_(&arena), state_(&known), handle_(arena.handle_of(&known)) {}

  [[nodiscard]] Ticket begin_wait(arena::Member& member);
  // ok: notified. After `interrupted`, call it again or stop waiting. Call end_wait() in any case.
  [[nodiscard]] WaitResult wait(const Ticket& ticket, int64_t deadline_ns);
  // True if this waiter was notified, however wait() returned.
  bool end_wait(arena::Member& member, const Ticket& ticket);

  // Notifies up to `count` waiters; returns how many.
  uint32_t notify(arena::Member& member, uint32_t count = 1);
  uint32_t notify_all(arena::Member& member) { return notify(member, UINT32_MAX); }
  [[nodiscard]] uint32_t waiters() const noexcept;
  [[nodiscard]] arena::Handle handle() const noexcept { return handle_; }

  // Frees the further tables; no thread may wait any more. The caller frees the block itself.
  void destroy(arena::Member& member) noexcept;
  // The end hook: if the block is a condition, frees its further tables.
  static void end(arena::Arena& arena, arena::Member& member, arena::Handle block);

  // The hook for HeldKind::condition.
  static void reap(arena::Arena& arena, arena::Member& reaper, arena::Incarnation dead,
                   arena::Handle handle);

 private:
  using Slot = os::Atomic<uint64_t>;
  static constexpr uint64_t kState = 3;
  static constexpr uint64_t kWaiting = 1;
  static constexpr uint64_t kNotified = 2;
  struct Oldest;

  template <class Visit>
  void for_each_slot(Visit&& visit) const;
  ConditionState* next_table(const ConditionState& table) const noexcept;
  ConditionState& add_table(arena::Member& member, ConditionState& last);
  Slot* claim_slot(ConditionState& table, uint64_t word) noexcept;
  void find_oldest(uint32_t limit, Oldest& found) const noexcept;
  uint32_t notify_before(uint32_t limit, uint32_t count) noexcept;
  static bool notify_slot(Slot& slot, uint64_t word) noexcept;
  void drop(Slot& slot, arena::Incarnation dead) noexcept;
  void look_for_dead(Holds& holds) noexcept;

  arena::Arena* arena_;
  ConditionState* state_;
  arena::Handle handle_;
};

}  // namespace shoal::sync
