// SPDX-License-Identifier: Apache-2.0
#include "sync/event.hpp"

#include <climits>
#include <new>

#include "sync/holds.hpp"
#include "testing/kill_point.hpp"

namespace shoal::sync {

void Event::create(arena::Arena& arena, arena::Handle handle) noexcept {
  auto* state = new (arena.address(handle)) EventState{};
  state->magic = kMagic;
}

Event::Event(arena::Arena& arena, arena::Handle handle) : state_(nullptr), handle_(handle) {
  if (handle % alignof(EventState) != 0 || !arena.contains(handle, sizeof(EventState)) ||
      arena.at<EventState>(handle)->magic != kMagic) {
    throw arena::CorruptArena("no event at offset " + std::to_string(handle));
  }
  state_ = arena.at<EventState>(handle);
}

void Event::set(arena::Member& member) {
  Holds& holds = Holds::of(member);
  const int held = holds.publish(handle_, HeldKind::event, true);
  uint32_t word = state_->word.load();
  while ((word & kSet) == 0) {
    // COMMIT(event.set.word): killed before: nothing; after: set, a reaper wakes the waiters.
    if (!state_->word.compare_exchange(word, ((word + kEpoch) | kSet) & ~kWaiters)) continue;
    SHOAL_KILL_POINT("event.set.word");
    if ((word & kWaiters) != 0) os::futex_wake(&state_->word, INT_MAX);
    break;
  }
  holds.clear(held);
}

void Event::clear() noexcept {
  // COMMIT(event.clear.word): killed before: nothing; after: clear.
  state_->word.fetch_and(~kSet);
  SHOAL_KILL_POINT("event.clear.word");
}

WaitResult Event::wait(uint32_t first, int64_t deadline_ns) {
  // The event is set, or was set and cleared since `first`, so that the epoch has changed.
  const auto happened = [&](uint32_t word) {
    return (word & kSet) != 0 || (word ^ first) >= kEpoch;
  };
  if (happened(state_->word.load())) return WaitResult::ok;
  if (deadline_ns == 0) return WaitResult::timed_out;
  if (spin_until([&] { return happened(state_->word.load()); })) return WaitResult::ok;
  Ticker ticker(deadline_ns);
  for (;;) {
    uint32_t word = state_->word.load();
    if (happened(word)) return WaitResult::ok;
    // COMMIT(event.wait.word): killed before: nothing; after: set() makes a needless system call.
    if ((word & kWaiters) == 0 && !state_->word.compare_exchange(word, word | kWaiters)) continue;
    SHOAL_KILL_POINT("event.wait.word");
    bool ticked = false;
    const os::Wake wake = ticker.sleep(&state_->word, word | kWaiters, &ticked);
    if (happened(state_->word.load())) return WaitResult::ok;
    if (wake == os::Wake::timed_out) return WaitResult::timed_out;
    if (wake == os::Wake::interrupted) return WaitResult::interrupted;
  }
}

void Event::reap(arena::Arena& arena, arena::Member&, arena::Incarnation, arena::Handle handle) {
  if (!arena.contains(handle, sizeof(EventState))) return;
  os::futex_wake(&arena.at<EventState>(handle)->word, INT_MAX);
}

}  // namespace shoal::sync
