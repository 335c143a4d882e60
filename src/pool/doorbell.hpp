// SPDX-License-Identifier: Apache-2.0
//
// A doorbell: one futex word on which processes sleep until another process rings.
//
// Word: sequence << 1 | a process may sleep. Any member, any thread. Never allocates, never throws.
//
// No wake-up is lost. A sleeper reads the word, *then* looks for what it waits for, then sleeps on
// the value it read (with the bit set). A ringer publishes, *then* changes the word. If the
// sleeper's look came before the publication, the word changes after the sleeper's read, so its
// futex call sees another value and returns; if the futex call came first, the bit was set and the
// ringer calls the kernel. All accesses are seq_cst: publish-then-read against set-then-look is
// Dekker's pattern. The bit is cleared only together with a new sequence number and a wake of all,
// so a sleeper that the clearing overtakes is woken. A ringer that is killed between clearing the
// bit and the kernel call leaves processes asleep although the bit is clear: recording a death
// therefore calls alarm() on the doorbells of the dead process's pool.
// Design: docs/design/pool.md
#pragma once

#include <climits>
#include <cstdint>

#include "os/atomic.hpp"
#include "os/futex.hpp"

namespace shoal::pool {

class Doorbell {
 public:
  explicit Doorbell(os::Atomic<uint32_t>& word) noexcept : word_(word) {}

  [[nodiscard]] uint32_t listen() const noexcept { return word_.load(); }

  // Sleeps while the word is what listen() returned. deadline_ns: CLOCK_MONOTONIC, < 0 = none.
  os::Wake sleep(uint32_t seen, int64_t deadline_ns) noexcept {
    if ((seen & 1) == 0) {
      uint32_t expected = seen;
      if (!word_.compare_exchange(expected, seen | 1)) return os::Wake::changed;
    }
    return os::futex_wait(&word_, seen | 1, deadline_ns);
  }

  void ring_all() noexcept {
    uint32_t old = word_.load();
    while (!word_.compare_exchange(old, (old + 2) & ~1u)) {
    }
    if (old & 1) os::futex_wake(&word_, INT_MAX);
  }

  // As ring_all(), but calls the kernel even when the bit is clear: a dead ringer may have cleared
  // it before its own kernel call.
  void alarm() noexcept {
    uint32_t old = word_.load();
    while (!word_.compare_exchange(old, (old + 2) & ~1u)) {
    }
    os::futex_wake(&word_, INT_MAX);
  }

  // Wakes one sleeper. If there is none, clears the bit, so that the next ring needs no system
  // call.
  void ring_one() noexcept {
    const uint32_t old = word_.fetch_add(2);
    if ((old & 1) == 0) return;
    if (os::futex_wake(&word_, 1) > 0) return;
    uint32_t expected = old + 2;
    if (word_.compare_exchange(expected, (old + 4) & ~1u)) os::futex_wake(&word_, INT_MAX);
  }

  // Tells awake listeners that something changed, without a system call.
  void bump() noexcept { word_.fetch_add(2); }

  [[nodiscard]] bool has_sleepers() const noexcept { return (word_.load() & 1) != 0; }

 private:
  os::Atomic<uint32_t>& word_;
};

}  // namespace shoal::pool
