// SPDX-License-Identifier: Apache-2.0
//
// Clocks: CLOCK_MONOTONIC in nanoseconds (the same in all processes of the machine; all deadlines
// are times of this clock) and the processor's own counter for cheap time stamps. Callable
// anywhere; never blocks or throws.
// Design: docs/design/os.md
#pragma once

#include <cstdint>

namespace shoal::os {

int64_t monotonic_ns() noexcept;
// costs a few ns, with the resolution of a scheduler tick (1 to 10 ms)
int64_t monotonic_coarse_ns() noexcept;

// The processor's counter (rdtsc, cntvct): costs about 10 ns, constant rate, synchronous across
// cores.
inline uint64_t ticks() noexcept {
#if defined(__x86_64__)
  return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
  uint64_t value;
  asm volatile("mrs %0, cntvct_el0" : "=r"(value));
  return value;
#else
  return static_cast<uint64_t>(monotonic_ns());
#endif
}

// Nanoseconds per tick. x86: measured by the first call, which takes 0.25 ms; aarch64: read from a
// register.
double ns_per_tick() noexcept;

}  // namespace shoal::os
