// SPDX-License-Identifier: Apache-2.0
#include "sync/mutex.hpp"

#include <new>

#include "testing/kill_point.hpp"

namespace shoal::sync {

namespace {
bool is_free(uint64_t word) noexcept { return (word & arena::kLockOwner) == 0; }
}  // namespace

void Mutex::create(arena::Arena& arena, arena::Handle handle) noexcept {
  auto* state = new (arena.address(handle)) MutexState{};
  state->magic = kMagic;
}

Mutex::Mutex(arena::Arena& arena, arena::Handle handle)
    : arena_(&arena), state_(nullptr), handle_(handle) {
  if (handle % alignof(MutexState) != 0 || !arena.contains(handle, sizeof(MutexState)) ||
      arena.at<MutexState>(handle)->magic != kMagic) {
    throw arena::CorruptArena("no mutex at offset " + std::to_string(handle));
  }
  state_ = arena.at<MutexState>(handle);
}

// busy: another thread has the lock; else this member does. `also`: WAITERS when the caller has
// slept (invariant 2).
Locked Mutex::take(MutexState& state, arena::Incarnation me, uint64_t also) noexcept {
  uint64_t word = 0;
  while (is_free(word)) {
    // COMMIT(mutex.lock.word): killed before: the reaper wakes one; after: DIED for the next owner.
    const uint64_t kept = word & (kWaiters | kHandoff);
    if (state.word.compare_exchange(word, arena::lock_word(me) | kept | also)) {
      SHOAL_KILL_POINT("mutex.lock.word");
      return (word & kDied) != 0 ? Locked::owner_died : Locked::ok;
    }
  }
  return Locked::busy;
}

Locked Mutex::settle(Holds& holds, int held, Locked result) noexcept {
  if (!is_locked(result) || handed_off()) {
    holds.clear(held);
  } else {
    holds.set_owned(held);
  }
  return result;
}

Locked Mutex::try_lock(arena::Member& member) {
  Holds& holds = Holds::of(member);
  const int held = holds.publish(handle_, HeldKind::mutex);
  Locked result = take(*state_, holds.incarnation(), 0);
  if (result == Locked::busy) [[unlikely]]
    result = take_if_owner_died(holds, 0);
  return settle(holds, held, result);
}

Locked Mutex::lock(arena::Member& member, int64_t deadline_ns) {
  Holds& holds = Holds::of(member);
  int held = holds.publish(handle_, HeldKind::mutex);
  SHOAL_KILL_POINT("mutex.lock.enter");
  Locked result = take(*state_, holds.incarnation(), 0);
  if (result == Locked::busy) [[unlikely]] {
    if (held == Holds::kNone) {
      holds.drop_stale(&is_handed_off);
      held = holds.publish(handle_, HeldKind::mutex);
    }
    result = sleep_and_take(member, holds, deadline_ns);
  }
  return settle(holds, held, result);
}

Locked Mutex::sleep_and_take(arena::Member& member, Holds& holds, int64_t deadline_ns) {
  const arena::Incarnation me = holds.incarnation();
  MutexState& state = *state_;
  Locked result = Locked::busy;
  const auto taken = [&] { return (result = take(state, me, 0)) != Locked::busy; };
  // order: relaxed; saves compare-exchanges that would fail; taken() looks again
  const auto free = [&] { return is_free(state.word.load(os::relaxed)) && taken(); };
  if (deadline_ns != 0 && spin_until(free)) return result;
  Ticker ticker(deadline_ns);
  for (uint64_t also = 0;; also = kWaiters) {
    uint64_t word = state.word.load();
    if (is_free(word)) {
      if ((result = take(state, me, also)) != Locked::busy) return result;
      continue;
    }
    // COMMIT(mutex.wait.word): killed before: nothing; after: one wake-up too many is given.
    if ((word & kWaiters) == 0 && !state.word.compare_exchange(word, word | kWaiters)) continue;
    SHOAL_KILL_POINT("mutex.wait.word");
    bool ticked = false;
    switch (
        ticker.sleep(os::low_half(state.word), static_cast<uint32_t>(word | kWaiters), &ticked)) {
      case os::Wake::timed_out:
        result = take_if_owner_died(holds, kWaiters);
        return result == Locked::busy ? Locked::timed_out : result;
      case os::Wake::interrupted:
        return Locked::interrupted;
      case os::Wake::woken:
      case os::Wake::changed:
        break;
    }
    const arena::Incarnation owner = arena::lock_owner(word);
    if (!ticked || owner == me || arena::member_alive(*arena_, owner)) continue;
    take_from_dead(*arena_, state, owner);  // before the reap, which may wait for other members
    reap_quietly(*arena_, member, owner);
  }
}

// For a call that will not wait, or not any longer. busy: another member has the lock and is alive.
// A member that is stopped at any point in this function does no harm: take_from_dead() changes the
// word only while it contains the dead member's incarnation, and no other member ever gets that
// incarnation.
Locked Mutex::take_if_owner_died(Holds& holds, uint64_t also) noexcept {
  const arena::Incarnation dead = owner();
  if (dead != 0 && (handed_off() || !holds.seems_dead(dead))) return Locked::busy;
  if (dead != 0) take_from_dead(*arena_, *state_, dead);
  return take(*state_, holds.incarnation(), also);
}

Unlocked Mutex::unlock(arena::Member& member) {
  Holds& holds = Holds::of(member);
  uint64_t word = state_->word.load(os::relaxed);  // order: relaxed; this member has it
  int held = Holds::kNone;
  do {
    if (arena::lock_owner(word) != holds.incarnation()) return hand_off(member, holds);
    held = (word & kHandoff) != 0 ? Holds::kNone : holds.find_owned(handle_);
    // COMMIT(mutex.unlock.word): killed before: DIED for the next owner; after: free, the reaper
    // wakes one.
  } while (!state_->word.compare_exchange(word, word & kHandoff));
  SHOAL_KILL_POINT("mutex.unlock.word");
  wake_next(word);
  holds.clear(held);
  return Unlocked::ok;
}

// One compare-exchange frees the lock and sets HANDOFF. If the owner unlocks first, nothing is
// changed: HANDOFF is never cleared, so it must not be set unless this release happens.
Unlocked Mutex::hand_off(arena::Member& member, Holds& holds) {
  const int held = holds.publish(handle_, HeldKind::mutex, true);
  uint64_t seen = state_->word.load();
  do {
    const arena::Incarnation owner = arena::lock_owner(seen);
    if (owner == 0 || owner == holds.incarnation()) {
      holds.clear(held);
      return owner == 0 ? Unlocked::not_locked : unlock(member);
    }
    // COMMIT(mutex.handoff.word): killed before: still locked; after: free, an owner's death does
    // not free the lock any more, and the reaper wakes one.
  } while (!state_->word.compare_exchange(seen, kHandoff));
  SHOAL_KILL_POINT("mutex.handoff.word");
  wake_next(seen);
  holds.clear(held);
  return Unlocked::handed_off;
}

void Mutex::wake_next(uint64_t word) noexcept {
  // COMMIT(mutex.unlock.woken): killed before: the reaper wakes one; after: it wakes one too many.
  if ((word & kWaiters) != 0) os::futex_wake(os::low_half(state_->word), 1);
  SHOAL_KILL_POINT("mutex.unlock.woken");
}

arena::Incarnation Mutex::owner() const noexcept { return arena::lock_owner(state_->word.load()); }

bool Mutex::handed_off() const noexcept {
  // order: relaxed; the flag is never cleared; a thread that misses it keeps a held word, for which
  // a reaper will not free the lock
  return (state_->word.load(os::relaxed) & kHandoff) != 0;
}

bool Mutex::is_handed_off(arena::Arena& arena, arena::Handle handle) {
  return (arena.at<MutexState>(handle)->word.load() & kHandoff) != 0;
}

void Mutex::take_from_dead(arena::Arena& arena, MutexState& state,
                           arena::Incarnation dead) noexcept {
  const int pid = arena::member_pid(arena, dead);  // known until the end of the reap
  uint64_t word = state.word.load();
  const auto is_held_by_dead = [&] { return arena::lock_owner(word) == dead; };
  // before the word changes, since the next owner reads it
  if (is_held_by_dead() && pid != 0) state.dead_pid.store(static_cast<uint32_t>(pid));
  while (is_held_by_dead() && (word & kHandoff) == 0) {
    // COMMIT(mutex.reap.word): killed before: the next reaper does it; after: the next reaper wakes
    // one.
    if (!state.word.compare_exchange(word, kDied | (word & kWaiters))) continue;
    SHOAL_KILL_POINT("mutex.reap.word");
    state.deaths.fetch_add(1);
    break;
  }
  os::futex_wake(os::low_half(state.word), 1);
}

void Mutex::reap(arena::Arena& arena, arena::Member&, arena::Incarnation dead,
                 arena::Handle handle) {
  if (arena.contains(handle, sizeof(MutexState)) && arena.at<MutexState>(handle)->magic == kMagic) {
    take_from_dead(arena, *arena.at<MutexState>(handle), dead);
  }
}

}  // namespace shoal::sync
