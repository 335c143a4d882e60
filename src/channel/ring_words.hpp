// SPDX-License-Identifier: Apache-2.0
//
// The words of a ring taken apart, for ring.cpp and ring_segments.cpp: pure functions.
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
inline constexpr uint32_t kMaxAttempts = 1u << 16;  // only a ring scribbled over needs so many
// A walk through the segments ends, also where memory is damaged.
inline constexpr uint64_t kMostSegments = uint64_t{1} << 26;

constexpr uint64_t lap_of(uint64_t position) noexcept {
  return position >> RingSegment::kSlotBits & kLapMask;
}
constexpr uint64_t index_of(uint64_t position) noexcept {
  return position & (RingSegment::kSlots - 1);
}
constexpr uint64_t lap_after(uint64_t lap) noexcept { return (lap + 1) & kLapMask; }
constexpr uint64_t lap_before(uint64_t lap) noexcept { return (lap - 1) & kLapMask; }
// Is `lap` a later one than `than`? They wrap, so: by less than half of all.
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
// Was it set in an earlier lap? A later one means that the question comes too late.
constexpr bool is_earlier_sum(uint64_t word, uint64_t lap) noexcept {
  const uint64_t distance = (lap - (word >> 40)) & kSumLapMask;
  return distance != 0 && distance <= kSumLapMask / 2;
}

}  // namespace shoal::channel
