// SPDX-License-Identifier: Apache-2.0
#include "sync/barrier.hpp"

#include <climits>
#include <new>

#include "sync/holds.hpp"
#include "testing/kill_point.hpp"

namespace shoal::sync {

namespace {

constexpr uint32_t kGenerations = 1u << 29;  // the numbers wrap around

// Slots
constexpr uint64_t kState = 3;
constexpr uint64_t kWaiting = 1;
constexpr uint64_t kReleased = 2;
constexpr uint64_t kBrokenSlot = 3;

constexpr uint64_t make_slot(arena::Incarnation waiter, uint32_t generation) noexcept {
  return uint64_t{arena::short_number(waiter)} << 32 | uint64_t{generation} << 2 | kWaiting;
}
arena::Incarnation waiter_of(const arena::Arena& arena, uint64_t word) noexcept {
  return arena::full_number(arena, word >> 32);
}
uint32_t generation_of(uint64_t word) noexcept {
  return static_cast<uint32_t>(word >> 2) & (kGenerations - 1);
}
bool waits_in(uint64_t word, uint32_t generation) noexcept {
  return (word & kState) == kWaiting && generation_of(word) == generation;
}

}  // namespace

struct Barrier::Phase {
  uint32_t arrived;
  uint32_t generation;
  Stage stage;

  explicit Phase(uint64_t word) noexcept
      : arrived(static_cast<uint32_t>(word >> 32)),
        generation(static_cast<uint32_t>(word) >> 3),
        stage(static_cast<Stage>(word & 7)) {}
  [[nodiscard]] uint32_t low_half() const noexcept {
    return generation << 3 | static_cast<uint32_t>(stage);
  }
  [[nodiscard]] uint64_t word() const noexcept { return uint64_t{arrived} << 32 | low_half(); }
  // Can this generation still break, or open?
  [[nodiscard]] bool is_open_ended() const noexcept {
    return stage == Stage::filling || stage == Stage::acting;
  }
  [[nodiscard]] Phase with(Stage to) const noexcept {
    Phase changed = *this;
    changed.stage = to;
    return changed;
  }
  [[nodiscard]] Phase with_arrived(uint32_t count) const noexcept {
    Phase changed = *this;
    changed.arrived = count;
    return changed;
  }
  [[nodiscard]] Phase next_generation() const noexcept {
    Phase next(0);
    next.generation = (generation + 1) & (kGenerations - 1);
    return next;
  }
};

// ---- the state

// Released parties of one generation may still have their slots while the next generation fills.
size_t Barrier::size_for(uint32_t parties) noexcept {
  return sizeof(BarrierState) + (size_t{parties} * 2 + 16) * sizeof(Slot);
}

void Barrier::create(arena::Arena& arena, arena::Handle handle, uint32_t parties) noexcept {
  auto* state = new (arena.address(handle)) BarrierState{};
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

// The half of the phase without the number of arrived parties, so that an arrival wakes no waiter.
// It is the low half, on a little-endian machine.
os::Atomic<uint32_t>& Barrier::futex_word() const noexcept {
  return *reinterpret_cast<os::Atomic<uint32_t>*>(state_);
}

Barrier::Phase Barrier::phase() const noexcept { return Phase(state_->phase.load()); }

bool Barrier::broken() const noexcept { return phase().stage == Stage::broken; }

uint32_t Barrier::waiting() const noexcept {
  const Phase now = phase();
  return now.stage == Stage::filling ? now.arrived : 0;
}

bool Barrier::advance(Phase from, Phase to) noexcept {
  uint64_t expected = from.word();
  // COMMIT(barrier.advance.phase): killed before: as it was; after: in the new stage, which other
  // members settle: the waiters at their ticks, or a reaper that wakes them.
  const bool done = state_->phase.compare_exchange(expected, to.word());
  SHOAL_KILL_POINT("barrier.advance.phase");
  return done;
}

// Does what remains to be done in the stages opening, resetting and broken. The wake-up comes last:
// a waiter that wakes finds its slot marked.
void Barrier::settle(Phase seen) noexcept {
  if (seen.is_open_ended()) return;
  const uint64_t mark = seen.stage == Stage::opening ? kReleased : kBrokenSlot;
  for (uint32_t i = 0; i < state_->capacity; ++i) {
    Slot& slot = slots()[i];
    uint64_t word = slot.load();
    if (!waits_in(word, seen.generation)) continue;
    // COMMIT(barrier.mark.slot): killed before: the party waits until another member marks the
    // slot; after: its wait is over.
    slot.compare_exchange(word, (word & ~kState) | mark);
    SHOAL_KILL_POINT("barrier.mark.slot");
  }
  if (seen.stage != Stage::broken) advance(seen, seen.next_generation());
  os::futex_wake(&futex_word(), INT_MAX);
}

// Ends the generation as `stage` says, unless it has ended in another way.
void Barrier::end_generation(uint32_t generation, Stage stage) noexcept {
  for (;;) {
    const Phase now = phase();
    if (now.generation != generation) return;
    const bool may =
        now.is_open_ended() || (now.stage == Stage::broken && stage == Stage::resetting);
    if (!may) return settle(now);
    if (advance(now, now.with(stage))) return settle(now.with(stage));
  }
}

// ---- arriving

// Stores `word` in an empty slot. The slot to try first differs between parties and between
// generations, so it usually is empty.
Barrier::Slot* Barrier::claim_slot(Phase seen, uint64_t word) noexcept {
  const uint32_t capacity = state_->capacity;
  const uint32_t begin = seen.arrived + (seen.generation % 2) * (capacity / 2);
  for (uint32_t i = 0; i < capacity; ++i) {
    Slot& slot = slots()[(begin + i) % capacity];
    uint64_t empty = 0;
    if (slot.load() != 0) continue;
    // COMMIT(barrier.arrive.slot): killed before: never arrived; after: its reaper breaks the
    // barrier.
    const bool done = slot.compare_exchange(empty, word);
    SHOAL_KILL_POINT("barrier.arrive.slot");
    if (done) return &slot;
  }
  return nullptr;
}

// Counts this party, which has a slot. False: the generation has ended without this party.
bool Barrier::join(bool has_action, Arrival& arrival) noexcept {
  for (;;) {
    const Phase now = phase();
    if (now.stage != Stage::filling || now.generation != generation_of(arrival.word)) return false;
    arrival.index = now.arrived;
    Phase next = now.with_arrived(now.arrived + 1);
    if (next.arrived >= state_->parties) {
      next.stage = has_action ? Stage::acting : Stage::opening;
    }
    if (!advance(now, next)) continue;
    arrival.came = next.stage == Stage::filling  ? Came::waits
                   : next.stage == Stage::acting ? Came::last
                                                 : Came::passed;
    settle(next);
    return true;
  }
}

Barrier::Arrival Barrier::arrive(arena::Member& member, bool has_action, int64_t deadline_ns) {
  Holds& holds = Holds::of(member);
  Arrival arrival{Came::waits, 0, nullptr, 0, holds.publish(handle_, HeldKind::barrier)};
  Ticker ticker(deadline_ns);
  uint32_t last_looked_at = 0;
  for (;;) {
    const Phase now = phase();
    settle(now);
    if (now.stage == Stage::broken) {
      arrival.came = Came::broken;
      break;
    }
    if (!now.is_open_ended()) continue;
    arrival.word = make_slot(holds.incarnation(), now.generation);
    arrival.slot = now.stage == Stage::filling ? claim_slot(now, arrival.word) : nullptr;
    if (arrival.slot != nullptr) {
      if (join(has_action, arrival)) break;
      arrival.slot->store(0);  // this party was not counted, however the slot was marked
      continue;
    }
    // An action runs, or all slots are taken by released parties that have not left yet.
    bool ticked = false;
    const os::Wake wake = ticker.sleep(&futex_word(), now.low_half(), &ticked);
    if (wake == os::Wake::timed_out || wake == os::Wake::interrupted) {
      arrival.came = wake == os::Wake::timed_out ? Came::timed_out : Came::interrupted;
      break;
    }
    if (ticked) look_for_dead(member, &last_looked_at);
  }
  if (arrival.came == Came::passed) arrival.slot->store(0);
  if (arrival.came != Came::waits && arrival.came != Came::last) holds.clear(arrival.held);
  return arrival;
}

bool Barrier::finish(arena::Member& member, const Arrival& arrival, bool succeeded) {
  const uint32_t generation = generation_of(arrival.word);
  bool opened = false;
  for (Phase now = phase(); succeeded && !opened; now = phase()) {
    if (now.generation != generation || now.stage != Stage::acting) break;
    opened = advance(now, now.with(Stage::opening));
    if (opened) settle(now.with(Stage::opening));
  }
  if (!succeeded) end_generation(generation, Stage::broken);
  arrival.slot->store(0);
  Holds::of(member).clear(arrival.held);
  return opened;
}

// ---- waiting

// May the party with this index check another party now? With many parties, only about kLookers of
// them check in one tick, so that thousands of parties together need little processor time.
bool Barrier::is_its_turn(uint32_t index) const noexcept {
  const uint32_t turns = 1 + state_->parties / kLookers;
  return (static_cast<uint64_t>(os::monotonic_ns() / kLastTickNs) + index) % turns == 0;
}

WaitResult Barrier::wait(arena::Member& member, const Arrival& arrival, int64_t deadline_ns) {
  const auto over = [&] { return arrival.slot->load() != arrival.word; };
  if (deadline_ns != 0 && spin_until(over)) return WaitResult::ok;
  Ticker ticker(deadline_ns);
  auto last_looked_at = static_cast<uint32_t>(arrival.slot - slots());
  while (!over()) {
    const Phase now = phase();
    // A later generation: all slots of this one were marked before it began. The parties of the
    // later one will not wake this thread for a long time.
    if (now.generation != generation_of(arrival.word)) continue;
    if (!now.is_open_ended()) {
      settle(now);
      continue;
    }
    bool ticked = false;
    const os::Wake wake = ticker.sleep(&futex_word(), now.low_half(), &ticked);
    if (over()) break;
    if (wake == os::Wake::timed_out) return WaitResult::timed_out;
    if (wake == os::Wake::interrupted) return WaitResult::interrupted;
    if (ticked && is_its_turn(arrival.index)) look_for_dead(member, &last_looked_at);
  }
  return WaitResult::ok;
}

// False: the generation is no longer filling, so its number of parties is decided.
bool Barrier::withdraw(uint32_t generation) noexcept {
  for (;;) {
    const Phase now = phase();
    if (now.generation != generation || now.stage != Stage::filling) return false;
    if (advance(now, now.with_arrived(now.arrived - 1))) return true;
  }
}

Barrier::Left Barrier::end_wait(arena::Member& member, const Arrival& arrival, WaitResult how) {
  const uint32_t generation = generation_of(arrival.word);
  bool withdrawn = false;
  if (how == WaitResult::timed_out) end_generation(generation, Stage::broken);
  if (how == WaitResult::interrupted) {
    withdrawn = withdraw(generation);
    const Phase now = phase();
    if (!withdrawn && now.generation == generation) settle(now);
  }
  // COMMIT(barrier.leave.slot): killed before: another member empties the slot; after: it is empty.
  const uint64_t word = arrival.slot->exchange(0);
  SHOAL_KILL_POINT("barrier.leave.slot");
  Holds::of(member).clear(arrival.held);
  if (withdrawn || (word & kState) == kWaiting) return Left::interrupted;
  return (word & kState) == kReleased ? Left::passed : Left::broken;
}

void Barrier::abort(arena::Member& member) {
  Holds& holds = Holds::of(member);
  const int held = holds.publish(handle_, HeldKind::barrier, true);
  Phase now = phase();
  while (now.stage != Stage::broken) {
    if (now.is_open_ended()) {
      if (advance(now, now.with(Stage::broken))) break;
    } else {
      settle(now);
    }
    now = phase();
  }
  settle(now.with(Stage::broken));
  holds.clear(held);
}

// If the generation opens first, its parties pass, and the next generation is in the same state as
// after a reset.
void Barrier::reset(arena::Member& member) {
  Holds& holds = Holds::of(member);
  const int held = holds.publish(handle_, HeldKind::barrier, true);
  end_generation(phase().generation, Stage::resetting);
  holds.clear(held);
}

// ---- the dead

// Part of a waiter's tick (invariant 4): checks the next party after *last_looked_at that has a
// slot and belongs to another member. It checks only one party, so that n waiters read /proc n
// times a tick.
void Barrier::look_for_dead(arena::Member& member, uint32_t* last_looked_at) noexcept {
  for (uint32_t i = 1; i <= state_->capacity; ++i) {
    const uint32_t index = (*last_looked_at + i) % state_->capacity;
    const arena::Incarnation other = waiter_of(*arena_, slots()[index].load());
    if (other == 0 || other == member.incarnation()) continue;
    *last_looked_at = index;
    if (arena::member_alive(*arena_, other)) return;
    drop_dead(other);  // before the reap, which may wait for other members
    reap_quietly(*arena_, member, other);
    return;
  }
}

// Must the death of this member break the barrier? A slot that is marked broken does not count: its
// generation was broken or reset with that party in it, and all parties have been told.
bool Barrier::must_break_for(arena::Incarnation member) const noexcept {
  for (uint32_t i = 0; i < state_->capacity; ++i) {
    const uint64_t word = slots()[i].load();
    if (waiter_of(*arena_, word) == member && (word & kState) != kBrokenSlot) return true;
  }
  return false;
}

// Breaks the barrier if must_break_for() the dead member, then empties its slots. In this order, if
// this member is killed in between, the next member still finds the slots. If this member is
// stopped before the compare-exchange that breaks the barrier, and other members drop the dead
// member and reset the barrier in the meantime, the compare-exchange fails, and the slots are
// empty. Wakes the waiters in any case: the dead member may have ended a generation without waking
// them.
void Barrier::drop_dead(arena::Incarnation dead) noexcept {
  for (;;) {
    const Phase now = phase();
    settle(now);
    if (now.stage == Stage::broken || !must_break_for(dead)) break;
    if (!now.is_open_ended() || !advance(now, now.with(Stage::broken))) continue;
    settle(now.with(Stage::broken));
    break;
  }
  for (uint32_t i = 0; i < state_->capacity; ++i) {
    uint64_t word = slots()[i].load();
    if (word == 0 || waiter_of(*arena_, word) != dead) continue;
    // COMMIT(barrier.reap.slot): killed before: emptied by the next reaper; after: empty.
    slots()[i].compare_exchange(word, 0);
    SHOAL_KILL_POINT("barrier.reap.slot");
  }
  os::futex_wake(&futex_word(), INT_MAX);
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
