// SPDX-License-Identifier: Apache-2.0
#include "sync/barrier.hpp"

#include <climits>
#include <new>

#include "sync/holds.hpp"
#include "testing/kill_point.hpp"

namespace shoal::sync {

namespace {

constexpr uint64_t make_slot(arena::Incarnation waiter, uint32_t generation) noexcept {
  return uint64_t{waiter} << 32 | (uint64_t{generation} & 0x3fffffff) << 2 | 1;
}
arena::Incarnation waiter_of(uint64_t word) noexcept {
  return static_cast<arena::Incarnation>(word >> 32);
}
bool is_of(uint64_t word, uint32_t generation) noexcept {
  return (word >> 2 & 0x3fffffff) == (generation & 0x3fffffff);
}

// The half of a slot that changes with every transition: the low one, on a little-endian machine.
os::Atomic<uint32_t>* low_half(os::Atomic<uint64_t>& slot) noexcept {
  return reinterpret_cast<os::Atomic<uint32_t>*>(&slot);
}

}  // namespace

// Locks the guard; if the last owner died with it, breaks the barrier (invariant 2).
class Barrier::Guard {
 public:
  Guard(Barrier& barrier, arena::Member& member)
      : mutex_(*barrier.arena_, barrier.state_->guard), member_(member) {
    Locked locked = Locked::busy;
    while (!is_locked(locked)) locked = mutex_.lock(member);  // a signal waits: the guard is brief
    if (locked == Locked::owner_died) barrier.break_it();
  }
  ~Guard() { mutex_.unlock(member_); }
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;

 private:
  Mutex mutex_;
  arena::Member& member_;
};

// Released waiters of one generation may still have their slots while the next one fills.
size_t Barrier::size_for(uint32_t parties) noexcept {
  return sizeof(BarrierState) + (size_t{parties} * 2 + 16) * sizeof(Slot);
}

void Barrier::create(arena::Arena& arena, arena::Handle handle, uint32_t parties) noexcept {
  auto* state = new (arena.address(handle)) BarrierState{};
  state->guard.magic = Mutex::kMagic;
  state->parties = parties;
  state->capacity = parties * 2 + 16;
  for (uint32_t i = 0; i < state->capacity; ++i)
    new (reinterpret_cast<Slot*>(state + 1) + i) Slot{};
  state->magic = kMagic;
}

Barrier::Barrier(arena::Arena& arena, arena::Handle handle)
    : arena_(&arena), state_(nullptr), handle_(handle) {
  if (handle % alignof(BarrierState) != 0 || !arena.contains(handle, sizeof(BarrierState)) ||
      arena.at<BarrierState>(handle)->magic != kMagic ||
      arena.block_size(handle) <
          sizeof(BarrierState) + size_t{arena.at<BarrierState>(handle)->capacity} * sizeof(Slot)) {
    throw arena::CorruptArena("no barrier at offset " + std::to_string(handle));
  }
  state_ = arena.at<BarrierState>(handle);
}

uint32_t Barrier::count_waiting(uint32_t generation) const noexcept {
  uint32_t count = 0;
  for (uint32_t i = 0; i < state_->capacity; ++i) {
    const uint64_t word = slots()[i].load();
    if ((word & kState) == kWaiting && is_of(word, generation)) ++count;
  }
  return count;
}

uint32_t Barrier::waiting() const noexcept {
  return state_->phase.load() == kFilling ? count_waiting(state_->generation.load()) : 0;
}

void Barrier::set_phase(uint32_t phase) noexcept {
  // COMMIT(barrier.phase.store): killed before: as it was; after: waiters' ticks see it.
  state_->phase.store(phase);
  SHOAL_KILL_POINT("barrier.phase.store");
  os::futex_wake(&state_->phase, INT_MAX);
}

void Barrier::mark_waiting(uint64_t as, bool all_generations) noexcept {
  const uint32_t generation = state_->generation.load();
  for (uint32_t i = 0; i < state_->capacity; ++i) {
    Slot& slot = slots()[i];
    uint64_t word = slot.load();
    if ((word & kState) != kWaiting || !(all_generations || is_of(word, generation))) continue;
    // COMMIT(barrier.mark.slot): killed before: waits on, the guard is DIED; after: it sees the new
    // state at its tick.
    if (slot.compare_exchange(word, (word & ~kState) | as)) os::futex_wake(low_half(slot), INT_MAX);
    SHOAL_KILL_POINT("barrier.mark.slot");
  }
}

void Barrier::open_locked() noexcept {
  mark_waiting(kReleased, false);
  // COMMIT(barrier.open.generation): killed before or after: the guard is DIED.
  state_->generation.fetch_add(1);
  SHOAL_KILL_POINT("barrier.open.generation");
  state_->actor.store(0);
  if (state_->phase.load() == kActing) set_phase(kFilling);
}

void Barrier::break_it() noexcept {
  set_phase(kBroken);
  mark_waiting(kBrokenSlot, true);
}

// A free slot, or one that a dead waiter left released or broken. The caller holds the guard.
Barrier::Slot* Barrier::free_slot(arena::Member& member) noexcept {
  for (uint32_t i = 0; i < state_->capacity; ++i) {
    if (slots()[i].load() == 0) return &slots()[i];
  }
  for (uint32_t i = 0; i < state_->capacity; ++i) {
    Slot& slot = slots()[i];
    uint64_t word = slot.load();
    if ((word & kState) == kWaiting || waiter_of(word) == member.incarnation()) continue;
    if (arena::member_alive(*arena_, waiter_of(word))) continue;
    if (slot.compare_exchange(word, 0)) return &slot;
  }
  return nullptr;
}

// `waits` without a slot: the party has to wait for a slot, or for the running action, and try
// again.
Barrier::Arrival Barrier::take_place_locked(arena::Member& member, bool has_action, int held) {
  const uint32_t phase = state_->phase.load();
  if (phase == kBroken) return {Came::broken, 0, nullptr, 0, held};
  if (phase == kActing) return {Came::waits, 0, nullptr, 0, held};
  const uint32_t generation = state_->generation.load();
  const uint32_t index = count_waiting(generation);
  if (index + 1 >= state_->parties) {
    if (has_action) {
      state_->actor.store(member.incarnation());
      set_phase(kActing);
      return {Came::last, index, nullptr, generation, held};
    }
    open_locked();
    return {Came::passed, index, nullptr, 0, held};
  }
  Slot* const slot = free_slot(member);
  if (slot == nullptr) return {Came::waits, 0, nullptr, 0, held};
  uint64_t word = make_slot(member.incarnation(), generation);
  // COMMIT(barrier.arrive.slot): killed before: never arrived; after: its reaper breaks the
  // barrier.
  slot->store(word);
  SHOAL_KILL_POINT("barrier.arrive.slot");
  const Arrival arrival{Came::waits, index, slot, word, held};
  if (broken()) slot->compare_exchange(word, word | kBrokenSlot);  // invariant 3
  return arrival;
}

Barrier::Arrival Barrier::arrive(arena::Member& member, bool has_action, int64_t deadline_ns) {
  const int held = Holds::of(member).publish(handle_, HeldKind::barrier);
  Ticker ticker(deadline_ns);
  Arrival arrival{};
  for (;;) {
    {
      const Guard guard(*this, member);
      arrival = take_place_locked(member, has_action, held);
    }
    if (arrival.came != Came::waits || arrival.slot != nullptr) break;
    bool ticked = false;
    const os::Wake wake = state_->phase.load() == kActing
                              ? ticker.sleep(&state_->phase, kActing, &ticked)
                              : (yield_processor(), os::Wake::changed);
    if (wake == os::Wake::timed_out) arrival.came = Came::timed_out;
    if (wake == os::Wake::interrupted) arrival.came = Came::interrupted;
    if (arrival.came != Came::waits) break;
    if (ticked) look_for_dead(member);
  }
  if (arrival.came != Came::waits && arrival.came != Came::last) Holds::of(member).clear(held);
  return arrival;
}

bool Barrier::finish(arena::Member& member, const Arrival& arrival, bool succeeded) {
  bool opened = false;
  {
    const Guard guard(*this, member);
    const bool mine = state_->phase.load() == kActing &&
                      state_->actor.load() == member.incarnation() &&
                      state_->generation.load() == static_cast<uint32_t>(arrival.word);
    opened = mine && succeeded;
    if (opened) open_locked();
    if (mine && !succeeded) break_it();
  }
  Holds::of(member).clear(arrival.held);
  return opened;
}

WaitResult Barrier::wait(arena::Member& member, const Arrival& arrival, int64_t deadline_ns) {
  const auto over = [&] { return arrival.slot->load() != arrival.word; };
  if (deadline_ns != 0 && spin_until(over)) return WaitResult::ok;
  Ticker ticker(deadline_ns);
  while (!over()) {
    bool ticked = false;
    const os::Wake wake =
        ticker.sleep(low_half(*arrival.slot), static_cast<uint32_t>(arrival.word), &ticked);
    if (over()) break;
    if (wake == os::Wake::timed_out) return WaitResult::timed_out;
    if (wake == os::Wake::interrupted) return WaitResult::interrupted;
    if (ticked) look_for_dead(member);
  }
  return WaitResult::ok;
}

Barrier::Left Barrier::end_wait(arena::Member& member, const Arrival& arrival, WaitResult how) {
  Left left = Left::interrupted;
  {
    const Guard guard(*this, member);
    // COMMIT(barrier.leave.slot): killed before: the reaper empties the slot; after: it is empty.
    const uint64_t word = arrival.slot->exchange(0);
    SHOAL_KILL_POINT("barrier.leave.slot");
    if ((word & kState) == kReleased) left = Left::passed;
    if ((word & kState) == kBrokenSlot) left = Left::broken;
    if ((word & kState) == kWaiting && how == WaitResult::timed_out) {
      break_it();
      left = Left::broken;
    }
  }
  Holds::of(member).clear(arrival.held);
  return left;
}

void Barrier::abort(arena::Member& member) {
  const Guard guard(*this, member);
  break_it();
}

void Barrier::reset(arena::Member& member) {
  const Guard guard(*this, member);
  mark_waiting(kBrokenSlot, true);
  state_->generation.fetch_add(1);
  state_->actor.store(0);
  set_phase(kFilling);
}

// A waiter's tick (invariant 4). If the dead member had a held word, reap() breaks the barrier
// through the hook; drop_dead() does so if it had none.
void Barrier::look_for_dead(arena::Member& member) noexcept {
  const auto look_at = [&](arena::Incarnation other) {
    if (other == 0 || other == member.incarnation() || arena::member_alive(*arena_, other)) return;
    arena::reap(*arena_, member, other);
    drop_dead(other);
  };
  look_at(Mutex(*arena_, state_->guard).owner());
  look_at(state_->actor.load());
  for (uint32_t i = 0; i < state_->capacity; ++i) {
    const uint64_t word = slots()[i].load();
    if ((word & kState) == kWaiting) look_at(waiter_of(word));
  }
  if (broken()) mark_waiting(kBrokenSlot, true);
}

// Breaks the barrier first and empties the slots afterwards: if the reaper is killed in between,
// the next one still finds the slots.
void Barrier::drop_dead(arena::Incarnation dead) noexcept {
  // DIED: the guard's dead owner may have released a part of the waiters only.
  bool was_party = state_->guard.word.load() >> 31 != 0;
  if (state_->phase.load() == kActing && state_->actor.load() == dead) was_party = true;
  for (uint32_t i = 0; i < state_->capacity; ++i) {
    const uint64_t word = slots()[i].load();
    if ((word & kState) == kWaiting && waiter_of(word) == dead) was_party = true;
  }
  if (was_party) break_it();
  for (uint32_t i = 0; i < state_->capacity; ++i) {
    uint64_t word = slots()[i].load();
    if (word == 0 || waiter_of(word) != dead) continue;
    // COMMIT(barrier.reap.slot): killed before: emptied by the next reaper; after: empty.
    slots()[i].compare_exchange(word, 0);
    SHOAL_KILL_POINT("barrier.reap.slot");
  }
}

void Barrier::reap(arena::Arena& arena, arena::Member&, arena::Incarnation dead,
                   arena::Handle handle) {
  if (!arena.contains(handle, sizeof(BarrierState)) ||
      arena.at<BarrierState>(handle)->magic != kMagic) {
    return;
  }
  try {
    Barrier(arena, handle).drop_dead(dead);
  } catch (const arena::CorruptArena&) {
    return;
  }
}

}  // namespace shoal::sync
