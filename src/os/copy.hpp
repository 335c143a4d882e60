// SPDX-License-Identifier: Apache-2.0
//
// Copying large amounts of memory. Any thread may call it; never throws.
// Design: docs/design/os.md
#pragma once

#include <cstddef>

namespace shoal::os {

// One core alone does not saturate the memory bus. From this size on a copy is worth more threads;
// starting and joining one costs about 50 us.
inline constexpr std::size_t kShareCopyFrom = std::size_t{32} << 20;

// memcpy(). From kShareCopyFrom bytes on it uses up to four threads, as many as this thread's
// affinity grants; the threads it starts have ended when it returns. If none can be started, this
// thread copies alone.
void copy(void* to, const void* from, std::size_t size) noexcept;

}  // namespace shoal::os
