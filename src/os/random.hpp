// SPDX-License-Identifier: Apache-2.0
//
// Random bits, for names and numbers that must differ from those of other processes. Not for
// secrets. Any thread; never blocks, allocates or throws.
// Design: docs/design/os.md
#pragma once

#include <cstdint>

namespace shoal::os {

uint64_t random_bits() noexcept;

}  // namespace shoal::os
