// SPDX-License-Identifier: Apache-2.0
#include "sync/condition.hpp"

#include <climits>
#include <new>

#include "sync/holds.hpp"
#include "testing/kill_point.hpp"

namespace shoal::sync {

namespace {

uint64_t ticket_of(uint64_t word) noexcept { return word >> 2 & 0x3fffffff; }
arena::Incarnation waiter_of(uint64_t word) noexcept {
  return static_cast<arena::Incarnation>(word >> 32);
}

}  // namespace

void Condition::create(arena::Arena& arena, arena::Handle handle) noexcept {
  auto* state = new (arena.address(handle)) ConditionState{};
  state->magic = arena::magic_at(kMagic, handle);
}

Condition::Condition(arena::Arena& arena, arena::Handle handle)
    : arena_(&arena), state_(nullptr), handle_(handle) {
  if (handle % alignof(ConditionState) != 0 || !arena.contains(handle, sizeof(ConditionState)) ||
      arena.at<ConditionState>(handle)->magic != arena::magic_at(kMagic, handle)) {
    throw arena::CorruptArena("no condition at offset " + std::to_string(handle));
  }
  state_ = arena.at<ConditionState>(handle);
}

// The kernel compares 32 bits: ticket and state, which change with every transition. They are the
// low half, on a little-endian machine.
os::Atomic<uint32_t>* Condition::low_half(Slot& slot) noexcept {
  return reinterpret_cast<os::Atomic<uint32_t>*>(&slot);
}

ConditionState* Condition::next_table(const ConditionState& table) const noexcept {
  const arena::Handle next = table.more.load();
  if (next == 0 || next % alignof(ConditionState) != 0) return nullptr;
  return arena_->contains(next, sizeof(ConditionState)) ? arena_->at<ConditionState>(next)
                                                        : nullptr;
}

template <class Visit>
void Condition::for_each_slot(Visit&& visit) const {
  for (ConditionState* table = state_; table != nullptr; table = next_table(*table)) {
    for (Slot& slot : table->slots) visit(slot);
  }
}

Condition::Slot* Condition::claim_slot(ConditionState& table, uint64_t word) noexcept {
  for (Slot& slot : table.slots) {
    uint64_t expected = 0;
    // COMMIT(condition.wait.slot): killed before: nothing; after: the reaper empties the slot.
    if (slot.load() == 0 && slot.compare_exchange(expected, word)) {
      SHOAL_KILL_POINT("condition.wait.slot");
      return &slot;
    }
  }
  return nullptr;
}

ConditionState& Condition::add_table(arena::Member& member, ConditionState& last) {
  const arena::Handle fresh = member.allocate(sizeof(ConditionState));
  create(*arena_, fresh);
  const arena::Handle parent = arena_->block_of(state_);
  member.give_to_block(fresh, parent);
  SHOAL_KILL_POINT("condition.table.enter");
  uint64_t expected = 0;
  // COMMIT(condition.table.more): killed before: the table is freed with the condition; after:
  // linked.
  if (!last.more.compare_exchange(expected, fresh)) member.free_child(fresh, parent);
  SHOAL_KILL_POINT("condition.table.more");
  ConditionState* const next = next_table(last);
  if (next == nullptr)
    throw arena::CorruptArena("condition: bad table at " + std::to_string(handle_));
  return *next;
}

Condition::Ticket Condition::begin_wait(arena::Member& member) {
  Holds& holds = Holds::of(member);
  const int held = holds.publish(handle_, HeldKind::condition);
  const uint64_t number = state_->tickets.fetch_add(1) & 0x3fffffff;
  const uint64_t word = uint64_t{holds.incarnation()} << 32 | number << 2 | kWaiting;
  ConditionState* table = state_;
  for (;;) {
    if (Slot* const slot = claim_slot(*table, word)) return {slot, word, held};
    ConditionState* const next = next_table(*table);
    table = next != nullptr ? next : &add_table(member, *table);
  }
}

WaitResult Condition::wait(const Ticket& ticket, int64_t deadline_ns) {
  const auto expected = static_cast<uint32_t>(ticket.word);
  const auto notified = [&] { return ticket.slot->load() != ticket.word; };
  if (deadline_ns != 0 && spin_until(notified)) return WaitResult::ok;
  while (!notified()) {
    const WaitResult slept = sleep_on(low_half(*ticket.slot), expected, deadline_ns);
    if (slept != WaitResult::ok && !notified()) return slept;
  }
  return WaitResult::ok;
}

bool Condition::end_wait(arena::Member& member, const Ticket& ticket) {
  // COMMIT(condition.end.slot): killed before: the reaper passes a notification on; after: it is
  // used up.
  const uint64_t word = ticket.slot->exchange(0);
  SHOAL_KILL_POINT("condition.end.slot");
  Holds::of(member).clear(ticket.held);
  return (word & kState) == kNotified;
}

Condition::Slot* Condition::oldest_waiting(uint64_t* word) const noexcept {
  Slot* oldest = nullptr;
  for_each_slot([&](Slot& slot) {
    const uint64_t found = slot.load();
    if ((found & kState) != kWaiting) return;
    // Tickets wrap at 2^30: a ticket is older if it lies less than half of that range before.
    const bool older =
        oldest == nullptr || ((ticket_of(found) - ticket_of(*word)) & 0x3fffffff) > 0x1fffffff;
    if (!older) return;
    oldest = &slot;
    *word = found;
  });
  return oldest;
}

bool Condition::notify_oldest() noexcept {
  for (;;) {
    uint64_t word = 0;
    Slot* const slot = oldest_waiting(&word);
    if (slot == nullptr) return false;
    // COMMIT(condition.notify.slot): killed before: not notified; after: a reaper wakes the waiter.
    if (!slot->compare_exchange(word, (word & ~kState) | kNotified)) continue;
    SHOAL_KILL_POINT("condition.notify.slot");
    os::futex_wake(low_half(*slot), INT_MAX);
    return true;
  }
}

uint32_t Condition::notify(arena::Member& member, uint32_t count) {
  Holds& holds = Holds::of(member);
  const int held = holds.publish_surely(handle_, HeldKind::condition);
  const uint32_t most = count < waiters() ? count : waiters();  // later waiters are not notified
  uint32_t notified = 0;
  while (notified < most && notify_oldest()) ++notified;
  holds.clear(held);
  return notified;
}

uint32_t Condition::waiters() const noexcept {
  uint32_t count = 0;
  for_each_slot([&](Slot& slot) { count += (slot.load() & kState) == kWaiting ? 1 : 0; });
  return count;
}

void Condition::destroy(arena::Member& member) noexcept {
  const arena::Handle parent = arena_->block_of(state_);
  arena::Handle table = state_->more.exchange(0);
  while (table != 0 && arena_->contains(table, sizeof(ConditionState))) {
    const arena::Handle next = arena_->at<ConditionState>(table)->more.load();
    member.free_child(table, parent);
    table = next;
  }
}

void Condition::end(arena::Arena& arena, arena::Member& member, arena::Handle block) {
  if (arena.block_size(block) < sizeof(ConditionState)) return;
  auto* const state = arena.at<ConditionState>(block);
  if (state->magic != arena::magic_at(kMagic, block)) return;
  Condition(arena, *state).destroy(member);
  state->magic = 0;
}

// Passes the notification on first and empties the slot afterwards: a reaper that is killed in
// between has notified one waiter too many, never one too few. Also wakes live waiters that are
// notified, since the dead member may have notified them without waking them.
void Condition::drop_dead(arena::Incarnation dead) noexcept {
  for_each_slot([&](Slot& slot) {
    uint64_t word = slot.load();
    if (word != 0 && waiter_of(word) == dead) {
      if ((word & kState) == kNotified) notify_oldest();
      // COMMIT(condition.reap.slot): killed before: at worst two waiters are notified; after:
      // reaped.
      while (waiter_of(word) == dead && !slot.compare_exchange(word, 0)) {
        if ((word & kState) == kNotified) notify_oldest();
      }
      SHOAL_KILL_POINT("condition.reap.slot");
    } else if ((word & kState) == kNotified) {
      os::futex_wake(low_half(slot), INT_MAX);
    }
  });
}

void Condition::reap(arena::Arena& arena, arena::Member& reaper, arena::Incarnation dead,
                     arena::Handle handle) {
  if (!arena.contains(handle, sizeof(ConditionState)) ||
      arena.at<ConditionState>(handle)->magic != arena::magic_at(kMagic, handle)) {
    return;
  }
  // If the reaper dies between notifying and waking, its own reaper repeats this.
  const int held = Holds::of(reaper).publish_surely(handle, HeldKind::condition);
  Condition(arena, handle).drop_dead(dead);
  Holds::of(reaper).clear(held);
}

}  // namespace shoal::sync
