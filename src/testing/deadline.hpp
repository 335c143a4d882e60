// SPDX-License-Identifier: Apache-2.0
//
// in_ms(n): the deadline n milliseconds from now. Tests only.
#pragma once

#include <cstdint>

#include "os/clock.hpp"

namespace shoal::testing {

inline int64_t in_ms(int64_t ms) noexcept { return os::monotonic_ns() + ms * 1'000'000; }

}  // namespace shoal::testing
