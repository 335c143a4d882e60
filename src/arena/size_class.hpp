// SPDX-License-Identifier: Apache-2.0
//
// Size classes of small blocks: multiples of 64 bytes up to 512, then four per doubling up to 32
// KiB (so at most 1/5 of a block is waste). A span holds blocks of one class: 1 page for blocks up
// to 4 KiB, else 4 pages.
//
//   span: owner word[count] | padding to 64 | block[count]
//
// All functions are pure.
// Design: docs/design/arena.md
#pragma once

#include <array>
#include <cstdint>

#include "arena/layout.hpp"

namespace shoal::arena {

inline constexpr uint32_t kClasses = 8 + 4 * 6;
inline constexpr uint64_t kMaxSmall = 32768;

struct SizeClass {
  uint32_t size;   // bytes of a block
  uint32_t count;  // blocks in a span
  uint32_t first;  // offset of block 0 in the span
  uint32_t span_pages;
  uint32_t reciprocal;  // ceil(2^32 / (size / 64)): index = (offset / 64 * reciprocal) >> 32
};

constexpr SizeClass make_size_class(uint32_t size) noexcept {
  const uint32_t pages = size <= 4096 ? 1 : 4;
  const uint64_t bytes = pages * kPage;
  uint64_t count = bytes / (size + 8);
  while ((count * 8 + 63) / 64 * 64 + count * size > bytes) --count;
  const uint64_t units = size / 64;
  return {size, static_cast<uint32_t>(count), static_cast<uint32_t>((count * 8 + 63) / 64 * 64),
          pages,
          static_cast<uint32_t>(((uint64_t{1} << 32) + units - 1) / units - (units == 1 ? 1 : 0))};
}

constexpr std::array<SizeClass, kClasses> make_size_classes() noexcept {
  std::array<SizeClass, kClasses> classes{};
  uint32_t at = 0;
  for (uint32_t size = 64; size <= 512; size += 64) classes[at++] = make_size_class(size);
  for (uint32_t base = 512; base < kMaxSmall; base *= 2)
    for (uint32_t quarter = 1; quarter <= 4; ++quarter)
      classes[at++] = make_size_class(base + base / 4 * quarter);
  return classes;
}

inline constexpr std::array<SizeClass, kClasses> kSizeClasses = make_size_classes();

// The class for `bytes`, 0 < bytes <= kMaxSmall.
constexpr uint32_t class_for(uint64_t bytes) noexcept {
  if (bytes <= 512) return static_cast<uint32_t>((bytes + 63) / 64 - 1);
  // 2^log < bytes <= 2^(log+1)
  const uint32_t log = 63U - static_cast<uint32_t>(__builtin_clzll(bytes - 1));
  const uint64_t quarter =
      (bytes - (uint64_t{1} << log) + (uint64_t{1} << log) / 4 - 1) >> (log - 2);
  return 8 + (log - 9) * 4 + static_cast<uint32_t>(quarter) - 1;
}

// Which block of a span lies at `offset` from the span's start; >= count when there is none.
constexpr uint32_t block_index(const SizeClass& c, uint64_t offset) noexcept {
  if (offset < c.first) return c.count;
  const uint64_t units = (offset - c.first) >> 6;
  if (c.size == 64) return static_cast<uint32_t>(units);
  return static_cast<uint32_t>(units * c.reciprocal >> 32);
}

// The class that a shape word names; always a valid class, even if the word is corrupt.
constexpr const SizeClass& class_in(uint64_t shape) noexcept {
  return kSizeClasses[shape_class(shape) % kClasses];
}

constexpr bool size_classes_are_sound() noexcept {
  for (uint32_t i = 0; i < kClasses; ++i) {
    const SizeClass& c = kSizeClasses[i];
    if (class_for(c.size) != i || (i > 0 && class_for(kSizeClasses[i - 1].size + 1) != i))
      return false;
    if (c.first + uint64_t{c.count} * c.size > c.span_pages * kPage || c.first % 64 != 0)
      return false;
    for (uint64_t b = 0; b < c.count; ++b) {
      if (block_index(c, c.first + b * c.size) != b) return false;
      if (block_index(c, c.first + b * c.size + c.size - 1) != b) return false;
    }
  }
  return kSizeClasses[kClasses - 1].size == kMaxSmall;
}
static_assert(size_classes_are_sound());

}  // namespace shoal::arena
