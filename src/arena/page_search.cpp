// SPDX-License-Identifier: Apache-2.0
#include "arena/page_search.hpp"

#include <bit>

namespace shoal::arena {

namespace {

// One word of the bitmaps, 64 pages: a bit is set for each page that is free (and warm, if `warm`).
uint64_t wanted_word(const Bitmaps& maps, uint64_t index, bool warm) noexcept {
  const uint64_t free = ~maps.used[index].load(os::relaxed);  // order: relaxed; under the lock
  return warm ? free & maps.warm[index].load(os::relaxed)
              : free;  // order: relaxed; a late bit is missed only
}

// First page at or after `from` whose bit is `set`; the frontier if there is none.
uint64_t next_page(const Bitmaps& maps, uint64_t from, bool warm, bool set) noexcept {
  while (from < maps.frontier) {
    uint64_t word = wanted_word(maps, from / 64, warm);
    if (!set) word = ~word;
    word &= ~uint64_t{0} << (from % 64);
    if (word != 0) {
      const uint64_t found = from / 64 * 64 + static_cast<uint64_t>(std::countr_zero(word));
      return found < maps.frontier ? found : maps.frontier;
    }
    from = (from / 64 + 1) * 64;
  }
  return maps.frontier;
}

uint64_t align_up(uint64_t value, uint64_t align) noexcept {
  return (value + align - 1) / align * align;
}

}  // namespace

uint64_t next_set_bit(const os::Atomic<uint64_t>* bits, uint64_t from, uint64_t end) noexcept {
  while (from < end) {
    const uint64_t word = bits[from / 64].load() & ~uint64_t{0} << (from % 64);
    if (word != 0) return from / 64 * 64 + static_cast<uint64_t>(std::countr_zero(word));
    from = (from / 64 + 1) * 64;
  }
  return kNoPage;
}

Extent next_extent(const Bitmaps& maps, uint64_t from, bool warm) noexcept {
  const uint64_t begin = next_page(maps, from, warm, true);
  return {begin, next_page(maps, begin, warm, false)};
}

uint64_t find_warm(const Bitmaps& maps, uint64_t count, uint64_t align) noexcept {
  uint64_t best = kNoPage;
  uint64_t best_size = UINT64_MAX;
  for (Extent e = next_extent(maps, 0, true); e.size() > 0; e = next_extent(maps, e.end, true)) {
    const uint64_t start = align_up(e.begin, align);
    if (start + count > e.end || e.size() >= best_size) continue;
    best = start;
    best_size = e.size();
    if (best_size == count) break;
  }
  return best;
}

uint64_t find_any(const Bitmaps& maps, uint64_t count, uint64_t align) noexcept {
  for (Extent e = next_extent(maps, 0, false); e.size() > 0; e = next_extent(maps, e.end, false)) {
    if (e.end == maps.frontier) e.end = maps.pages;  // goes on past the frontier
    const uint64_t start = align_up(e.begin, align);
    if (start + count <= e.end) return start;
    if (e.end == maps.pages) return kNoPage;
  }
  const uint64_t start = align_up(maps.frontier, align);
  return start + count <= maps.pages ? start : kNoPage;
}

bool all_warm_free(const Bitmaps& maps, uint64_t first, uint64_t count) noexcept {
  while (count > 0) {
    const uint64_t shift = first % 64;
    const uint64_t here = count < 64 - shift ? count : 64 - shift;
    const uint64_t mask = (~uint64_t{0} >> (64 - here)) << shift;
    if ((wanted_word(maps, first / 64, true) & mask) != mask) return false;
    first += here;
    count -= here;
  }
  return true;
}

uint64_t count_bits(const os::Atomic<uint64_t>* bits, uint64_t count) noexcept {
  uint64_t total = 0;
  for (uint64_t i = 0; i < count / 64; ++i)
    // order: relaxed; a snapshot
    total += static_cast<uint64_t>(std::popcount(bits[i].load(os::relaxed)));
  return total;  // the frontier is a multiple of 64
}

}  // namespace shoal::arena
