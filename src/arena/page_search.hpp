// SPDX-License-Identifier: Apache-2.0
//
// Bitmaps with one bit a page: single bits, and searches for free extents. Pure functions of the
// bitmaps. Callers of the functions on free extents hold the RunsLock, so `used` does not change
// (warm bits may only be set meanwhile, which is harmless).
// Design: docs/design/arena.md
#pragma once

#include <cstdint>

#include "os/atomic.hpp"

namespace shoal::arena {

struct Bitmaps {
  const os::Atomic<uint64_t>* used;
  const os::Atomic<uint64_t>* warm;
  uint64_t frontier;  // pages that have bits; all pages from here to `pages` are free and cold
  uint64_t pages;     // data pages in the reserve
};

struct Extent {
  uint64_t begin = 0;
  uint64_t end = 0;  // begin == end: none
  uint64_t size() const noexcept { return end - begin; }
};

inline constexpr uint64_t kNoPage = UINT64_MAX;

// The next maximal extent of pages that are free (and warm, if `warm`) at or after `from`, below
// the frontier.
Extent next_extent(const Bitmaps& maps, uint64_t from, bool warm) noexcept;

// Best fit among warm free extents: in the smallest that has room, a first page that is a multiple
// of `align`; kNoPage: none has room.
uint64_t find_warm(const Bitmaps& maps, uint64_t count, uint64_t align) noexcept;

// First fit among all free pages, including the unused ones past the frontier; kNoPage: the reserve
// is full.
uint64_t find_any(const Bitmaps& maps, uint64_t count, uint64_t align) noexcept;

// Are all of these pages free and warm?
bool all_warm_free(const Bitmaps& maps, uint64_t first, uint64_t count) noexcept;

uint64_t count_bits(const os::Atomic<uint64_t>* bits, uint64_t count) noexcept;

// The bit of this index in its word of a bitmap.
constexpr uint64_t bit_of(uint64_t index) noexcept { return uint64_t{1} << (index % 64); }

// The first index in [from, end) whose bit is set, or one after `end` in the same word; kNoPage:
// none.
uint64_t next_set_bit(const os::Atomic<uint64_t>* bits, uint64_t from, uint64_t end) noexcept;

inline bool test_bit(const os::Atomic<uint64_t>* bits, uint64_t index) noexcept {
  // order: relaxed; a hint for callers without the lock, stable for callers that hold it
  return (bits[index / 64].load(os::relaxed) >> (index % 64) & 1) != 0;
}

}  // namespace shoal::arena
