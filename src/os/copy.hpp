// SPDX-License-Identifier: Apache-2.0
//
// Copying much memory. Any thread; never throws.
// Design: docs/design/os.md
#pragma once

#include <cstddef>

namespace shoal::os {

// One core alone does not fill the memory bus: from here on a copy is worth a second thread, whose
// start and end cost about 50 us.
inline constexpr std::size_t kShareCopyFrom = std::size_t{32} << 20;

// memcpy(); from kShareCopyFrom on by up to four threads, as many as this thread's affinity grants,
// that are gone when it returns. Where none can be had, this thread copies alone.
void copy(void* to, const void* from, std::size_t size) noexcept;

}  // namespace shoal::os
