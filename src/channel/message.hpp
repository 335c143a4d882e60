// SPDX-License-Identifier: Apache-2.0
//
// Message: one block that holds an encoded value, and the handles of further blocks (attachments)
// that the value refers to. Any thread of any member. Making one allocates and may throw
// MemoryExhausted; nothing blocks.
//
// The block:  MessageHeader | attachments x u64 handle | payload bytes
// Invariants:
// 1. An attachment's owner is BLOCK(message) until a receiver takes it out. The message's owner
//    frees the attachments first and then the message; if it dies in between, its reaper frees the
//    rest.
// 2. A reader of a message fetches size and count once and checks them against the block's size,
//    because other processes can write to the block.
// Design: docs/design/channel.md
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "arena/arena.hpp"

namespace shoal::channel {

struct MessageHeader {
  uint32_t magic;
  uint32_t attachments;  // number of handles
  uint64_t size;         // bytes of payload
  uint64_t ring_sum;     // written by the ring, see channel/ring.hpp
  uint64_t weight;       // bytes that count against a channel's limit: sizes of the blocks
};
static_assert(sizeof(MessageHeader) == 32 && offsetof(MessageHeader, ring_sum) == 16);

inline constexpr uint32_t kMessageMagic = 0x67736d73;  // "smsg"

// A message's contents, checked; the pointers go into the arena.
struct Message {
  arena::Handle handle = 0;
  const std::byte* bytes = nullptr;
  size_t size = 0;
  const arena::Handle* attachments = nullptr;
  size_t attachment_count = 0;
};

// Makes a message with a copy of `payload`, owned by `member`. The attachments, blocks of the
// member, belong to the message from then on. When this throws, no block has changed its owner.
arena::Handle make_message(arena::Member& member, std::span<const std::byte> payload,
                           std::span<const arena::Handle> attachments);

// Throws CorruptArena when there is no message at `handle`.
Message open_message(const arena::Arena& arena, arena::Handle handle);

// Frees the member's message with the attachments that are still in it.
void free_message(arena::Member& member, arena::Handle handle) noexcept;

}  // namespace shoal::channel
