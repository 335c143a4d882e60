// SPDX-License-Identifier: Apache-2.0
#include "os/huge_pages.hpp"

#include <sys/mman.h>

#include <cstdint>

namespace shoal::os {

void prefer_huge_pages(void* at, std::size_t size) noexcept {
  constexpr std::uintptr_t kPage = 4096;
  const auto begin = (reinterpret_cast<std::uintptr_t>(at) + kPage - 1) / kPage * kPage;
  const auto end = (reinterpret_cast<std::uintptr_t>(at) + size) / kPage * kPage;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
}

}  // namespace shoal::os
