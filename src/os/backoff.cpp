// SPDX-License-Identifier: Apache-2.0
#include "os/backoff.hpp"

#include <sched.h>
#include <time.h>

#include <algorithm>
#include <cerrno>

namespace shoal::os {

namespace {
constexpr uint32_t kYields = 32;        // about 50 us when no other thread wants the processor
constexpr long kFirstSleepNs = 50'000;  // what the kernel adds by itself to such a sleep
constexpr long kLongestSleepNs = 1'000'000;
}  // namespace

void Backoff::give_way() noexcept {
  const int saved = errno;
  const uint32_t turn = turns_ / kSpins;
  if (turn <= kYields) {
    sched_yield();
  } else {
    const uint32_t doublings = std::min<uint32_t>(turn - kYields - 1, 5);
    const timespec pause{0, std::min(kFirstSleepNs << doublings, kLongestSleepNs)};
    nanosleep(&pause, nullptr);
  }
  errno = saved;
}

}  // namespace shoal::os
