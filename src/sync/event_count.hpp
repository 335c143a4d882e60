// SPDX-License-Identifier: Apache-2.0
//
// EventCount: one futex word on which any thread of any member sleeps until a condition that is
// stored elsewhere may have changed. Never allocates, never throws.
//
// Word:  31..1 epoch, changed by each wake-up     0 WAITERS: some thread may be asleep
//
// Two ways to use an EventCount. All calls on one word use the same way; wake_all() fits both.
//   Notifications are frequent and sleepers rare: a notification without a sleeper is one load.
//     seen = count.prepare();  if (condition) proceed;  else futex_wait(&count.word(), seen)
//     ... change the condition (seq_cst) ...; count.notify_one();
//   Checks are frequent, or only the sleeper can evaluate its conditions: a check is one load, and
//   a notification is always a read-modify-write.
//     seen = count.listen();  if (condition) proceed;
//     else if (count.announce(&seen)) futex_wait(&count.word(), seen)
//     ... change the condition ...; count.advance_all();
//
// Why no wake-up is lost: for the first way see sync/wait.hpp, where prepare() is W1 and notify's
// load is P2. In the second way the word is changed after the condition. A sleeper that read the
// new word sees the condition; one that read the old word finds it changed when it announces or
// sleeps, or is in the kernel's queue with WAITERS set, and is woken.
//
// A notifier that is stopped between two instructions delays its own notification and no other:
// WAITERS is set while any thread sleeps. Only the kernel clears WAITERS, in one step with waking
// all sleepers: it adds 1 to the word (futex_increment_and_wake_all), which clears WAITERS and
// changes the epoch. So a thread between prepare() and its sleep finds the word changed. If another
// notifier has added 1 just before, adding 1 sets WAITERS although no thread sleeps; the next
// notification then makes a superfluous system call.
// Design: docs/design/sync.md
#pragma once

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
    if (has_waiters()) wake_one();
  }
  void notify_all() noexcept {
    if (has_waiters()) os::futex_increment_and_wake_all(&word_);
  }
  // Would a notification wake a thread? A thread that goes to sleep later checks the condition
  // first.
  [[nodiscard]] bool has_waiters() const noexcept { return (word_.load() & kWaiters) != 0; }

  [[nodiscard]] uint32_t listen() const noexcept { return word_.load(); }
  // Before a listener sleeps on *seen. False: the word has changed since listen().
  [[nodiscard]] bool announce(uint32_t* seen) noexcept {
    uint32_t expected = *seen;
    *seen |= kWaiters;
    return expected == *seen || word_.compare_exchange(expected, *seen);
  }
  // Call after the condition has changed: no listener stays asleep on an older value of the word.
  void advance_all() noexcept {
    if ((word_.fetch_add(kEpoch) & kWaiters) != 0) os::futex_increment_and_wake_all(&word_);
  }

  // As notify_all(), but changes the word even without WAITERS, so that each thread between
  // prepare() and sleep looks again. For reapers, which do not know what the dead member had
  // published.
  void wake_all() noexcept {
    word_.fetch_or(kWaiters);
    os::futex_increment_and_wake_all(&word_);
  }

  [[nodiscard]] os::Atomic<uint32_t>& word() noexcept { return word_; }

 private:
  static constexpr uint32_t kWaiters = 1;
  static constexpr uint32_t kEpoch = 2;

  void wake_one() noexcept {
    word_.fetch_add(kEpoch);
    if (os::futex_wake(&word_, 1) == 0) os::futex_increment_and_wake_all(&word_);
  }

  os::Atomic<uint32_t> word_;
};
static_assert(sizeof(EventCount) == 4);

}  // namespace shoal::sync
