// SPDX-License-Identifier: Apache-2.0
#include "sync/condition.hpp"

#include <climits>
#include <new>

#include "sync/holds.hpp"
#include "testing/kill_point.hpp"

namespace shoal::sync {

namespace {

constexpr uint32_t kTickets = 1u << 30;  // the numbers wrap around

// The age of the waiter in this slot: how many tickets before `limit` it took its own. Waiters with
// ticket `limit` or later get the largest numbers: see is_newer().
uint32_t age_of(uint64_t word, uint32_t limit) noexcept {
  return (limit - 1 - static_cast<uint32_t>(word >> 2)) & (kTickets - 1);
}
constexpr uint32_t kNewer = 1u << 24;  // so many waiters may come during one call of notify()
bool is_newer(uint32_t age) noexcept { return age >= kTickets - kNewer; }

arena::ShortNumber waiter_of(uint64_t word) noexcept {
  return static_cast<arena::ShortNumber>(word >> 32);
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
  const uint64_t word =
      uint64_t{arena::short_number(holds.incarnation())} << 32 | number << 2 | kWaiting;
  ConditionState* table = state_;
  try {
    for (;;) {
      if (Slot* const slot = claim_slot(*table, word)) return {slot, word, held, &holds};
      ConditionState* const next = next_table(*table);
      table = next != nullptr ? next : &add_table(member, *table);
    }
  } catch (...) {
    holds.clear(held);
    throw;
  }
}

WaitResult Condition::wait(const Ticket& ticket, int64_t deadline_ns) {
  const auto expected = static_cast<uint32_t>(ticket.word);
  const auto notified = [&] { return ticket.slot->load() != ticket.word; };
  if (deadline_ns != 0 && spin_until(notified)) return WaitResult::ok;
  Ticker ticker(deadline_ns);
  while (!notified()) {
    bool ticked = false;
    const os::Wake wake = ticker.sleep(os::low_half(*ticket.slot), expected, &ticked);
    if (notified()) break;
    // Also before it returns without a notification, for waiters that poll.
    if (ticked || wake == os::Wake::timed_out) look_for_dead(*ticket.holds);
    if (notified()) break;
    if (wake == os::Wake::timed_out) return WaitResult::timed_out;
    if (wake == os::Wake::interrupted) return WaitResult::interrupted;
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

// The oldest waiters in state waiting, oldest first: at most `wanted`, and at most as many as fit
// in here.
struct Condition::Oldest {
  static constexpr uint32_t kMost = 64;
  struct Found {
    Slot* slot;
    uint64_t word;
    uint32_t age;
  };
  explicit Oldest(uint32_t wanted) noexcept : most(wanted < kMost ? wanted : kMost) {}

  void insert(const Found& waiter) noexcept {
    ++all;
    if (count == most && waiter.age <= found[count - 1].age) return;
    uint32_t at = count < most ? count++ : count - 1;
    for (; at > 0 && found[at - 1].age < waiter.age; --at) found[at] = found[at - 1];
    found[at] = waiter;
  }

  const uint32_t most;  // at least 1
  uint32_t count = 0;
  uint32_t all = 0;  // how many waiters there are
  Found found[kMost];
};

void Condition::find_oldest(uint32_t limit, Oldest& found) const noexcept {
  for_each_slot([&](Slot& slot) {
    const uint64_t word = slot.load();
    if ((word & kState) != kWaiting) return;
    const uint32_t age = age_of(word, limit);
    if (!is_newer(age)) found.insert({&slot, word, age});
  });
}

bool Condition::notify_slot(Slot& slot, uint64_t word) noexcept {
  // COMMIT(condition.notify.slot): killed before: not notified; after: the waiter sees it at its
  // tick, or earlier if a reaper wakes it.
  if (!slot.compare_exchange(word, (word & ~kState) | kNotified)) return false;
  SHOAL_KILL_POINT("condition.notify.slot");
  os::futex_wake(os::low_half(slot), INT_MAX);
  return true;
}

// Notifies the `count` oldest of the waiters that took their ticket before `limit`. If a notifier
// is stopped between its load of a slot and the compare-exchange, it notifies that waiter or, if
// the waiter has left, no waiter. In the second case the loop searches again for waiters with
// tickets before `limit`.
uint32_t Condition::notify_before(uint32_t limit, uint32_t count) noexcept {
  uint32_t notified = 0;
  while (notified < count) {
    Oldest oldest(count - notified);
    find_oldest(limit, oldest);
    if (oldest.all == 0) break;
    if (oldest.all > oldest.count && oldest.all <= count - notified) {  // all, so in any order
      for_each_slot([&](Slot& slot) {
        const uint64_t word = slot.load();
        if ((word & kState) != kWaiting || is_newer(age_of(word, limit))) return;
        if (notified < count && notify_slot(slot, word)) ++notified;
      });
      break;
    }
    for (uint32_t i = 0; i < oldest.count; ++i) {
      if (notify_slot(*oldest.found[i].slot, oldest.found[i].word)) ++notified;
    }
  }
  return notified;
}

uint32_t Condition::notify(arena::Member& member, uint32_t count) {
  const uint32_t limit = state_->tickets.load();  // first, so that later waiters are not notified
  Holds& holds = Holds::of(member);
  const int held = holds.publish(handle_, HeldKind::condition, true);
  const uint32_t notified = notify_before(limit, count);
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

// Empties the slot if it belongs to the dead member. First passes the slot's notification on to
// another waiter: a member that is killed or stopped in between has notified one waiter too many,
// never one too few.
void Condition::drop(Slot& slot, arena::Incarnation dead) noexcept {
  uint64_t word = slot.load();
  while (word != 0 && arena::full_number(*arena_, waiter_of(word)) == dead) {
    if ((word & kState) == kNotified) notify_before(state_->tickets.load(), 1);
    // COMMIT(condition.reap.slot): killed before: at worst two waiters are notified; after: reaped.
    const bool done = slot.compare_exchange(word, 0);
    SHOAL_KILL_POINT("condition.reap.slot");
    if (done) return;
  }
}

// Drops dead waiters. Reads /proc only for notified waiters, once in Holds::kLookMs for each: a
// dead waiter that is not notified takes no notification from other waiters, so its slot can stay
// until the waiter is reaped.
void Condition::look_for_dead(Holds& holds) noexcept {
  const arena::ShortNumber me = arena::short_number(holds.incarnation());
  for_each_slot([&](Slot& slot) {
    const uint64_t word = slot.load();
    if (word == 0 || waiter_of(word) == me) return;
    const arena::Incarnation waiter = arena::full_number(*arena_, waiter_of(word));
    const bool dead = (word & kState) == kNotified ? holds.seems_dead(waiter)
                                                   : !arena::member_listed(*arena_, waiter);
    if (dead) drop(slot, waiter);
  });
}

void Condition::reap(arena::Arena& arena, arena::Member& reaper, arena::Incarnation dead,
                     arena::Handle handle) {
  if (!arena.contains(handle, sizeof(ConditionState)) ||
      arena.at<ConditionState>(handle)->magic != arena::magic_at(kMagic, handle)) {
    return;
  }
  // If the reaper dies between notifying and waking, its own reaper repeats this. Waiters that are
  // notified are woken once more, since the dead member may have notified them and not woken them.
  const int held = Holds::of(reaper).publish(handle, HeldKind::condition, true);
  Condition condition(arena, handle);
  condition.for_each_slot([&](Slot& slot) {
    condition.drop(slot, dead);
    if ((slot.load() & kState) == kNotified) os::futex_wake(os::low_half(slot), INT_MAX);
  });
  Holds::of(reaper).clear(held);
}

}  // namespace shoal::sync
