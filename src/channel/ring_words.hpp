// SPDX-License-Identifier: Apache-2.0
//
// Packing and unpacking of a ring's words, for ring.cpp and ring_segments.cpp: pure functions.
// Design: docs/design/channel.md
#pragma once

#include <cstdint>

#include "channel/ring.hpp"

namespace shoal::channel {

inline constexpr uint64_t kLapMask = (uint64_t{1} << 29) - 1;
inline constexpr uint64_t kLapShift = 35;
inline constexpr uint64_t kFull = uint64_t{1} << 34;
inline constexpr uint64_t kHandleMask = (uint64_t{1} << 34) - 1;
inline constexpr uint64_t kUnitMask = (uint64_t{1} << 40) - 1;
inline constexpr uint64_t kSumLapMask = (uint64_t{1} << 24) - 1;
inline constexpr uint32_t kMaxAttempts = 1u << 16;  // only a corrupt ring needs so many
// The limit that ends a walk through the segments when memory is corrupt.
inline constexpr uint64_t kMostSegments = uint64_t{1} << 26;

constexpr uint64_t lap_of(uint64_t position) noexcept {
  return position >> RingSegment::kSlotBits & kLapMask;
}
constexpr uint64_t index_of(uint64_t position) noexcept {
  return position & (RingSegment::kSlots - 1);
}
constexpr uint64_t lap_after(uint64_t lap) noexcept { return (lap + 1) & kLapMask; }
constexpr uint64_t lap_before(uint64_t lap) noexcept { return (lap - 1) & kLapMask; }
// Whether `lap` is later than `than`. Laps wrap: later means ahead by less than half of all laps.
constexpr bool is_later(uint64_t lap, uint64_t than) noexcept {
  const uint64_t distance = (lap - than) & kLapMask;
  return distance != 0 && distance <= kLapMask / 2;
}

constexpr uint64_t lap_in(uint64_t word) noexcept { return word >> kLapShift; }
constexpr arena::Handle handle_in(uint64_t word) noexcept { return (word & kHandleMask) << 6; }
constexpr uint64_t link_word(uint64_t lap, arena::Handle segment) noexcept {
  return lap << kLapShift | segment >> 6;
}
constexpr uint64_t taken_word(uint64_t lap) noexcept { return lap << kLapShift; }
constexpr uint64_t sum_word(uint64_t lap, uint64_t units) noexcept {
  return (lap & kSumLapMask) << 40 | (units & kUnitMask);
}
constexpr bool is_sum_of(uint64_t word, uint64_t lap) noexcept {
  return word >> 40 == (lap & kSumLapMask);
}
// Whether the sum was set in an earlier lap. (If it was set in a later lap, the caller's lap is
// over.)
constexpr bool is_earlier_sum(uint64_t word, uint64_t lap) noexcept {
  const uint64_t distance = (lap - (word >> 40)) & kSumLapMask;
  return distance != 0 && distance <= kSumLapMask / 2;
}

}  // namespace shoal::channel
