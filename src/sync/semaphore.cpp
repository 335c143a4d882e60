// SPDX-License-Identifier: Apache-2.0
#include "sync/semaphore.hpp"

#include <climits>
#include <new>

#include "sync/holds.hpp"
#include "testing/kill_point.hpp"

namespace shoal::sync {

void Semaphore::create(arena::Arena& arena, arena::Handle handle, uint32_t permits,
                       uint32_t limit) noexcept {
  auto* state = new (arena.address(handle)) SemaphoreState{};
  state->limit = limit;
  state->magic = kMagic;
  state->word.store(permits);
}

Semaphore::Semaphore(arena::Arena& arena, arena::Handle handle) : state_(nullptr), handle_(handle) {
  if (handle % alignof(SemaphoreState) != 0 || !arena.contains(handle, sizeof(SemaphoreState)) ||
      arena.at<SemaphoreState>(handle)->magic != kMagic) {
    throw arena::CorruptArena("no semaphore at offset " + std::to_string(handle));
  }
  state_ = arena.at<SemaphoreState>(handle);
}

bool Semaphore::try_acquire() noexcept {
  uint32_t word = state_->word.load();
  while ((word & ~kWaiters) != 0) {
    // COMMIT(semaphore.acquire.word): killed before: nothing; after: the permit stays acquired.
    if (state_->word.compare_exchange(word, word - 1)) {
      SHOAL_KILL_POINT("semaphore.acquire.word");
      return true;
    }
  }
  return false;
}

WaitResult Semaphore::acquire(arena::Member& member, int64_t deadline_ns) {
  if (try_acquire()) return WaitResult::ok;
  if (deadline_ns == 0) return WaitResult::timed_out;
  if (spin_until([&] { return permits() != 0 && try_acquire(); })) return WaitResult::ok;
  Holds& holds = Holds::of(member);
  const int held = holds.publish(handle_, HeldKind::semaphore);
  Ticker ticker(deadline_ns);
  WaitResult result = WaitResult::ok;
  while (!try_acquire()) {
    uint32_t word = 0;
    // COMMIT(semaphore.wait.word): killed before: nothing; after: one wake-up too many is given.
    if (!state_->word.compare_exchange(word, kWaiters) && word != kWaiters) continue;
    SHOAL_KILL_POINT("semaphore.wait.word");
    bool ticked = false;
    const os::Wake wake = ticker.sleep(&state_->word, kWaiters, &ticked);
    if (wake == os::Wake::timed_out) result = WaitResult::timed_out;
    if (wake == os::Wake::interrupted) result = WaitResult::interrupted;
    if (result != WaitResult::ok) break;
  }
  holds.clear(held);
  return result;
}

bool Semaphore::release(arena::Member& member, uint32_t count) {
  uint32_t word = state_->word.load();
  int held = Holds::kNone;
  for (;;) {
    if (count > state_->limit - (word & ~kWaiters)) {
      if (held != Holds::kNone) Holds::of(member).clear(held);
      return false;
    }
    if ((word & kWaiters) != 0 && held == Holds::kNone) {
      held = Holds::of(member).publish(handle_, HeldKind::semaphore, true);
    }
    // COMMIT(semaphore.release.word): killed before: nothing; after: released, a reaper wakes all.
    if (state_->word.compare_exchange(word, word + count)) break;
  }
  SHOAL_KILL_POINT("semaphore.release.word");
  // COMMIT(semaphore.release.woken): killed before: the reaper wakes all; after: it does so
  // needlessly.
  if ((word & kWaiters) != 0) wake(word + count, count);
  SHOAL_KILL_POINT("semaphore.release.woken");
  if (held != Holds::kNone) Holds::of(member).clear(held);
  return true;
}

void Semaphore::wake(uint32_t word_after, uint32_t count) noexcept {
  const int most = count < INT_MAX ? static_cast<int>(count) : INT_MAX;
  if (os::futex_wake(&state_->word, most) >= most) return;
  uint32_t expected = word_after;
  if (state_->word.compare_exchange(expected, word_after & ~kWaiters)) {
    os::futex_wake(&state_->word, INT_MAX);
  }
}

void Semaphore::reap(arena::Arena& arena, arena::Member&, arena::Incarnation,
                     arena::Handle handle) {
  if (!arena.contains(handle, sizeof(SemaphoreState))) return;
  os::futex_wake(&arena.at<SemaphoreState>(handle)->word, INT_MAX);
}

}  // namespace shoal::sync
