// SPDX-License-Identifier: Apache-2.0
//
// Hand: how many messages of one channel this member has received and not marked as done. It is a
// block of the member. When the member ends, the end hook adds the number to the lost ones in
// ChannelState::ends, so that wait_all_done() reports them instead of waiting forever.
//
// 1. A message is counted after it was received, and removed from the count before it is marked as
//    done. A death between receiving and counting, or between removing and marking, loses one
//    count. A reaper that dies between taking a dead member's count and adding it loses that count.
//    After such a loss wait_all_done() keeps waiting. No death makes a count too high.
// 2. Before a member marks a message that another member has received, it sets
//    ChannelState::hands_ignored. So does a member that has no memory for its hand. A reaper also
//    sets it if the lost messages are more than the word in channel/ends.hpp can count. From then
//    on hands are ignored in that channel.
//
// Any thread of the member.
// Design: docs/design/channel.md
#pragma once

#include <cstdint>

#include "arena/arena.hpp"
#include "os/atomic.hpp"

namespace shoal::channel {

struct Hand {
  static constexpr uint64_t kCheck = 0x646e61686c6f6873;  // "sholhand"
  uint64_t check;                                         // kCheck ^ the block's handle
  arena::Handle channel;
  uint32_t id;  // of the channel: a later channel may lie at the same handle
  arena::Incarnation owner;
  os::Atomic<uint64_t> count;
};

// Makes a hand with count 0. Throws MemoryExhausted.
arena::Handle make_hand(arena::Member& member, arena::Handle channel, uint32_t id);
// Decrements the count. False: the count was 0.
bool take_from_hand(Hand& hand) noexcept;
// nullptr: there is no hand at `block`.
Hand* hand_at(const arena::Arena& arena, arena::Handle block) noexcept;

}  // namespace shoal::channel
