// SPDX-License-Identifier: Apache-2.0
//
// Futex: sleeps until a word in shared memory changes. Works between processes (never
// FUTEX_PRIVATE). Deadlines are absolute CLOCK_MONOTONIC nanoseconds, so a retried wait does not
// last longer. EINTR is reported, since a caller must be able to run signal handlers. Any result
// except `changed` and `timed_out` may be spurious. Never allocates or throws.
// Design: docs/design/os.md
#pragma once

#include <bit>
#include <cstdint>

#include "os/atomic.hpp"

namespace shoal::os {

enum class Wake {
  woken,        // by futex_wake, or spuriously: look at the word again
  timed_out,    // the deadline has passed
  interrupted,  // a signal arrived (EINTR)
  changed,      // the word did not hold `expected` when the kernel looked
};

inline constexpr int64_t kNoDeadline = -1;

#if defined(SHOAL_TESTING) && SHOAL_TESTING
inline thread_local void (*wait_hook)() = nullptr;  // tests only: runs before each futex_wait()
// Tests only: takes the kernel's place for this thread (testing/weak_memory.hpp).
struct FutexModel {
  Wake (*wait)(Atomic<uint32_t>* word, uint32_t expected, bool has_deadline);
  // Adds `add` to the word and wakes, in one step; returns how many.
  int (*wake)(Atomic<uint32_t>* word, int count, uint32_t add);
};
inline thread_local const FutexModel* futex_model = nullptr;
#endif

// The half of a 64-bit word in which a thread can sleep: the low one. The kernel compares only this
// half. Supported machines are little-endian.
inline Atomic<uint32_t>* low_half(Atomic<uint64_t>& word) noexcept {
  static_assert(std::endian::native == std::endian::little);
  return reinterpret_cast<Atomic<uint32_t>*>(&word);
}

// Sleeps while *word == expected, until woken or until deadline_ns (< 0: none).
[[nodiscard]] Wake futex_wait(Atomic<uint32_t>* word, uint32_t expected,
                              int64_t deadline_ns) noexcept;

// Wakes at most `count` sleepers; returns how many. A call without sleepers costs about 0.3 us:
// keep a waiters flag to avoid it.
int futex_wake(Atomic<uint32_t>* word, int count) noexcept;

// Adds 1 to the word and wakes all its sleepers, in one step: a thread that goes to sleep during
// the call is either woken, or finds the word changed.
void futex_increment_and_wake_all(Atomic<uint32_t>* word) noexcept;

}  // namespace shoal::os
