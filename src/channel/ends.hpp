// SPDX-License-Identifier: Apache-2.0
//
// Ends: how many messages of a channel have ended, and how. One word of the channel's state, so
// each change is one compare-exchange: a member that is stopped or killed before or after it leaves
// a correct sum. Any thread of any member.
//
//   63..40 lost messages in hand of members that have ended; not yet reported to a join 39..0 done
//   messages that are marked as done, and lost ones that were reported
//
// Changes:
//   mark   {lost, done} -> {lost, done + 1}      mark_done(), if messages are unfinished
//   lose   {lost, done} -> {lost + n, done}      the reaper of a member that had n in hand
//   tell   {lost, done} -> {0, done + lost}      wait_all_done(), if unfinished = lost
// where unfinished = pushed - done, modulo 2^40 as the ring's positions are.
//
// Invariants:
// 1. done <= pushed. A member that changes the word loads it before it loads the number of pushes,
//    which only grows; and the compare-exchange fails if the word has changed in the meantime. The
//    word never has the same value twice: done only grows, and while done stays the same, lost only
//    grows.
// 2. lost <= unfinished, unless members have marked messages that they had not received. Then
//    hands_ignored is set (channel/hand.hpp), and losses are no longer reported to joins.
// Design: docs/design/channel.md
#pragma once

#include <cstdint>

namespace shoal::channel {

struct Ends {
  static constexpr uint64_t kDoneBits = 40;
  static constexpr uint64_t kDoneMask = (uint64_t{1} << kDoneBits) - 1;
  static constexpr uint64_t kMostLost = (uint64_t{1} << (64 - kDoneBits)) - 1;

  uint64_t lost;
  uint64_t done;

  static constexpr Ends in(uint64_t word) noexcept { return {word >> kDoneBits, word & kDoneMask}; }
  [[nodiscard]] constexpr uint64_t word() const noexcept {
    return lost << kDoneBits | (done & kDoneMask);
  }
  // `pushed` was loaded after the word.
  [[nodiscard]] constexpr uint64_t unfinished(uint64_t pushed) const noexcept {
    return (pushed - done) & kDoneMask;
  }
  [[nodiscard]] constexpr Ends marked() const noexcept { return {lost, done + 1}; }
  [[nodiscard]] constexpr Ends with_lost(uint64_t more) const noexcept {
    return {lost + more, done};
  }
  [[nodiscard]] constexpr Ends told() const noexcept { return {0, done + lost}; }
};

}  // namespace shoal::channel
