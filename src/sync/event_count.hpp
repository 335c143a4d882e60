// SPDX-License-Identifier: Apache-2.0
//
// One futex word on which any thread of any member sleeps until a condition that lies elsewhere
// may have changed. Notifying while nobody sleeps costs one load. Never allocates, never throws.
//
// Word:  31..1 epoch, changed by each notification     0 somebody may be asleep (WAITERS)
//
// Use:   seen = count.prepare();  if (condition) proceed;  else Ticker.sleep(&count.word(), seen)
//        ... change the condition (seq_cst) ...; count.notify_one();
//
// Why no wake-up is lost: sync/wait.hpp, where prepare() is W1 and notify's load is P2. What is
// special here: notify_one() clears WAITERS when the kernel woke nobody. A sleeper that came
// between the wake and the clearing is in the kernel's queue with the old value, or not there yet:
// the first kind is woken by the wake of all that follows, the second finds the word changed.
// Design: docs/design/sync.md
#pragma once

#include <climits>
#include <cstdint>

#include "os/atomic.hpp"
#include "os/futex.hpp"

namespace shoal::sync {

class EventCount {
 public:
  // W1: the value to sleep on, if a look at the condition says so.
  [[nodiscard]] uint32_t prepare() noexcept { return word_.fetch_or(kWaiters) | kWaiters; }

  // P2 and P3: after the condition was changed by a seq_cst store or read-modify-write.
  void notify_one() noexcept {
    if ((word_.load() & kWaiters) != 0) wake_one();
  }
  void notify_all() noexcept {
    if ((word_.load() & kWaiters) != 0) wake_all();
  }

  // As notify_all(), and also makes everybody look again who is between prepare() and sleep. For
  // reapers, which do not know what the dead had published.
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
