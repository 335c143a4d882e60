// SPDX-License-Identifier: Apache-2.0
//
// Hand: how many messages of one channel this member has received and not marked as done. It is a
// block of the member. When the member ends, the end hook adds the number to the lost ones in
// ChannelState::ends, so that wait_all_done() reports them instead of waiting for ever.
//
// 1. A message is counted after it was received, and taken out of the count before it is marked as
//    done. A death between receiving and counting, or between taking out and marking, loses one
//    count; so does a reaper's death between taking a dead member's count and adding it. Then
//    wait_all_done() goes on waiting. No death makes one count too many.
// 2. A member that marks a message which another one received sets ChannelState::hands_ignored
//    first; so does a reaper that has more messages to count as lost than channel/ends.hpp has room
//    for. From then on hands are ignored in that channel.
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
