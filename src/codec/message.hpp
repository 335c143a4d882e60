// SPDX-License-Identifier: Apache-2.0
//
// What an encoding is collected in before it becomes a message, and what a message looks like to
// whoever decodes it. A builder belongs to one thread at a time; a view is a plain record.
//
// Invariants of MessageBuilder:
// 1. Every handle in `attachments` is a block with owner MEMBER(member), until give_away() or
//    whoever makes the message has given it to the message's block and called forget().
// 2. `bytes` refers to attachments by their index in `attachments`.
//
// Design: docs/design/codec.md
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "codec/buffer.hpp"
#include "codec/pointer_map.hpp"

namespace shoal::arena {
class Arena;
class Member;
using Handle = std::uint64_t;
}  // namespace shoal::arena

namespace shoal::codec {

struct MessageBuilder {
  explicit MessageBuilder(arena::Member* owner = nullptr) noexcept : member(owner) {}
  MessageBuilder(const MessageBuilder&) = delete;
  MessageBuilder& operator=(const MessageBuilder&) = delete;
  ~MessageBuilder() { clear(); }

  Buffer bytes;                            // data(), size(), resize(), append()
  std::vector<arena::Handle> attachments;  // invariant 1
  arena::Member* member;                   // null: nothing can be attached, all goes in line
  bool move_arrays = false;  // hand on the block of an array that nobody else refers to: results

  // Frees the attachments and empties the builder; its memory is kept for the next message.
  void clear() noexcept;
  // Empties the builder after its attachments have found another owner.
  void forget() noexcept;
  // Drops what was added after this mark, attachments freed.
  void roll_back(std::size_t bytes_size, std::size_t attachment_count) noexcept;

  PointerMap memo;  // the encoder's: objects met in the value being encoded
};

struct MessageView {
  arena::Arena* arena = nullptr;    // null: the message has no attachments
  arena::Member* member = nullptr;  // who takes blocks over; may be null with copy_out
  const std::byte* bytes = nullptr;
  std::size_t size = 0;
  const arena::Handle* attachments = nullptr;
  std::size_t n_attachments = 0;
  arena::Handle parent = 0;  // the attachments' owner is BLOCK(parent)
};

}  // namespace shoal::codec
