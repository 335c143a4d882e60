// SPDX-License-Identifier: Apache-2.0
//
// Random bits, for names and numbers that are not to be those of another process. Not for secrets.
// Any thread; never blocks, allocates or throws.
// Design: docs/design/os.md
#pragma once

#include <cstdint>

namespace shoal::os {

uint64_t random_bits() noexcept;

}  // namespace shoal::os
