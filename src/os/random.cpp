// SPDX-License-Identifier: Apache-2.0
#include "os/random.hpp"

#include <sys/random.h>
#include <unistd.h>

#include "os/clock.hpp"

namespace shoal::os {

uint64_t random_bits() noexcept {
  uint64_t bits = 0;
  if (getrandom(&bits, sizeof bits, GRND_NONBLOCK) != sizeof bits) {
    bits = static_cast<uint64_t>(monotonic_ns()) ^ static_cast<uint64_t>(getpid()) << 40;
  }
  return bits;
}

}  // namespace shoal::os
