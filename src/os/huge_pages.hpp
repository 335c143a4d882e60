// SPDX-License-Identifier: Apache-2.0
//
// Advice for private memory that is about to be filled. Any thread; never throws.
// Design: docs/design/os.md
#pragma once

#include <cstddef>

namespace shoal::os {

// Asks for huge pages for the whole pages inside [at, at + size) of this process's private memory,
// before they are touched for the first time (MADV_HUGEPAGE). A wish: nothing tells whether it was
// granted.
void prefer_huge_pages(void* at, std::size_t size) noexcept;

}  // namespace shoal::os
