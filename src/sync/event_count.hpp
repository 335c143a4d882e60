// SPDX-License-Identifier: Apache-2.0
//
// EventCount: one futex word on which any thread of any member sleeps until a condition that is
// stored elsewhere may have changed. Notifying costs one load when nobody sleeps. Never allocates,
// never throws.
//
// Word:  31..1 epoch, changed by each wake-up     0 WAITERS: some thread may be asleep
//
// Use:   seen = count.prepare();  if (condition) proceed;  else Ticker.sleep(&count.word(), seen)
//        ... change the condition (seq_cst) ...; count.notify_one();
//
// No wake-up is lost: sync/wait.hpp, where prepare() is W1 and the load in notify is P2. One thing
// is special here: notify_one() clears WAITERS if the kernel woke no thread. A waiter that prepared
// between the wake and the clearing either is in the kernel's queue with the old value, and the
// wake of all that follows wakes it; or is not in the queue yet, and finds the word changed.
// Design: docs/design/sync.md
#pragma once

#include <climits>
#include <cstdint>

#include "os/atomic.hpp"
#include "os/futex.hpp"

namespace shoal::sync {

class EventCount {
 public:
  // W1: the value to sleep on if the condition does not hold.
  [[nodiscard]] uint32_t prepare() noexcept { return word_.fetch_or(kWaiters) | kWaiters; }

  // P2 and P3: call after a seq_cst store or read-modify-write has changed the condition.
  void notify_one() noexcept {
    if ((word_.load() & kWaiters) != 0) wake_one();
  }
  void notify_all() noexcept {
    if ((word_.load() & kWaiters) != 0) wake_all();
  }

  // As notify_all(), but changes the word even without WAITERS, so that each thread between
  // prepare() and sleep looks again. For reapers, which do not know what the dead member had
  // published.
  void wake_all() noexcept {
    uint32_t old = word_.load();
    while (!word_.compare_exchange(old, (old + kEpoch) & ~kWaiters)) {
    }
    os::futex_wake(&word_, INT_MAX);
  }

  [[nodiscard]] os::Atomic<uint32_t>& word() noexcept { return word_; }

 private:
  static constexpr uint32_t kWaiters = 1;
  static constexpr uint32_t kEpoch = 2;

  void wake_one() noexcept {
    const uint32_t now = word_.fetch_add(kEpoch) + kEpoch;
    if (os::futex_wake(&word_, 1) > 0) return;
    uint32_t expected = now;
    if (word_.compare_exchange(expected, (now + kEpoch) & ~kWaiters)) {
      os::futex_wake(&word_, INT_MAX);
    }
  }

  os::Atomic<uint32_t> word_;
};
static_assert(sizeof(EventCount) == 4);

}  // namespace shoal::sync
