// SPDX-License-Identifier: Apache-2.0
//
// Advice for private memory that is about to be filled. Any thread; never throws.
// Design: docs/design/os.md
#pragma once

#include <cstddef>

namespace shoal::os {

// Asks for huge pages behind the whole pages inside [at, at + size) of this process's private
// memory (MADV_HUGEPAGE). Call it before the memory is touched. The kernel may ignore the request,
// and does not tell.
void prefer_huge_pages(void* at, std::size_t size) noexcept;

}  // namespace shoal::os
