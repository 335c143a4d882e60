// SPDX-License-Identifier: Apache-2.0
//
// MessageBuilder collects an encoding before it becomes a message; MessageView describes a message
// to a decoder. A builder belongs to one thread at a time; a view is a plain record.
//
// Invariants of MessageBuilder:
// 1. Every handle in `attachments` is a block with owner MEMBER(member), until the maker of the
//    message has given it to the message's block and called forget().
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
  arena::Member* member;                   // null: no attachments, all data is in line
  bool move_arrays = false;  // for results: move the block of an array without other references

  // Frees the attachments and empties the builder; its memory is kept for the next message.
  void clear() noexcept;
  // Empties the builder after its attachments have been given to another owner.
  void forget() noexcept;
  // Drops everything added after these positions, and frees those attachments.
  void roll_back(std::size_t bytes_size, std::size_t attachment_count) noexcept;

  PointerMap memo;  // for the encoder: objects met in the value being encoded
};

struct MessageView {
  arena::Arena* arena = nullptr;    // null: the message has no attachments
  arena::Member* member = nullptr;  // member that takes over blocks; may be null with copy_out
  const std::byte* bytes = nullptr;
  std::size_t size = 0;
  const arena::Handle* attachments = nullptr;
  std::size_t n_attachments = 0;
  arena::Handle parent = 0;  // the owner of the attachments is BLOCK(parent)
};

}  // namespace shoal::codec
