// SPDX-License-Identifier: Apache-2.0
#include "os/clock.hpp"

#include <ctime>

namespace shoal::os {

namespace {
int64_t read_clock(clockid_t clock) noexcept {
  timespec now{};
  clock_gettime(clock, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

double measure_tick() noexcept {
#if defined(__aarch64__)
  uint64_t frequency;
  asm volatile("mrs %0, cntfrq_el0" : "=r"(frequency));
  return 1e9 / static_cast<double>(frequency);
#elif defined(__x86_64__)
  constexpr int64_t kWindow = 250'000;  // ns; reading the clock takes 25 ns, 1/10,000 of this
  const int64_t start_ns = monotonic_ns();
  const uint64_t start = ticks();
  int64_t now_ns = start_ns;
  while (now_ns - start_ns < kWindow) now_ns = monotonic_ns();
  return static_cast<double>(now_ns - start_ns) / static_cast<double>(ticks() - start);
#else
  return 1.0;
#endif
}
}  // namespace

int64_t monotonic_ns() noexcept { return read_clock(CLOCK_MONOTONIC); }

int64_t monotonic_coarse_ns() noexcept { return read_clock(CLOCK_MONOTONIC_COARSE); }

double ns_per_tick() noexcept {
  static const double value = measure_tick();
  return value;
}

}  // namespace shoal::os
