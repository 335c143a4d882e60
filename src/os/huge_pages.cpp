// SPDX-License-Identifier: Apache-2.0
#include "os/huge_pages.hpp"

#include <sys/mman.h>

#include <cstdint>

#include "os/memory.hpp"

namespace shoal::os {

void prefer_huge_pages(void* at, std::size_t size) noexcept {
  const std::uintptr_t page = page_size();
  const auto begin = (reinterpret_cast<std::uintptr_t>(at) + page - 1) / page * page;
  const auto end = (reinterpret_cast<std::uintptr_t>(at) + size) / page * page;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
}

}  // namespace shoal::os
