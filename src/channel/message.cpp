// SPDX-License-Identifier: Apache-2.0
#include "channel/message.hpp"

#include <cstring>
#include <string>

#include "testing/kill_point.hpp"

namespace shoal::channel {

arena::Handle make_message(arena::Member& member, std::span<const std::byte> payload,
                           std::span<const arena::Handle> attachments) {
  const arena::Arena& arena = member.arena();
  const size_t handles = attachments.size() * sizeof(arena::Handle);
  const arena::Handle message = member.allocate(sizeof(MessageHeader) + handles + payload.size());
  auto* const header = arena.at<MessageHeader>(message);
  *header = {kMessageMagic, static_cast<uint32_t>(attachments.size()), payload.size(), 0,
             arena.block_size(message)};
  auto* const after = reinterpret_cast<std::byte*>(header + 1);
  if (handles != 0) std::memcpy(after, attachments.data(), handles);
  if (!payload.empty()) std::memcpy(after + handles, payload.data(), payload.size());
  for (const arena::Handle attachment : attachments) {
    header->weight += arena.block_size(attachment);
    // COMMIT(message.attach): killed before: the scan frees both; after: freed with the message.
    member.give_to_block(attachment, message);
    SHOAL_KILL_POINT("message.attach");
  }
  return message;
}

Message open_message(const arena::Arena& arena, arena::Handle handle) {
  const size_t room = arena.block_size(handle);
  MessageHeader header{};
  if (room >= sizeof header) std::memcpy(&header, arena.address(handle), sizeof header);
  const size_t handles = size_t{header.attachments} * sizeof(arena::Handle);
  if (header.magic != kMessageMagic || handles > room - sizeof header ||
      header.size > room - sizeof header - handles) {
    throw arena::CorruptArena("no message at offset " + std::to_string(handle));
  }
  auto* const after = arena.at<const std::byte>(handle) + sizeof header;
  return {handle, after + handles, header.size, reinterpret_cast<const arena::Handle*>(after),
          header.attachments};
}

void free_message(arena::Member& member, arena::Handle handle) noexcept {
  const arena::Arena& arena = member.arena();
  const size_t room = arena.block_size(handle);
  MessageHeader header{};
  if (room >= sizeof header) std::memcpy(&header, arena.address(handle), sizeof header);
  const auto* const attachments =
      reinterpret_cast<const arena::Handle*>(arena.at<std::byte>(handle) + sizeof header);
  const size_t most = room < sizeof header ? 0 : (room - sizeof header) / sizeof(arena::Handle);
  for (size_t i = 0; header.magic == kMessageMagic && i < header.attachments && i < most; ++i) {
    // COMMIT(message.detach): killed before: the reaper frees it with the message; after: free.
    member.free_child(attachments[i], handle);
    SHOAL_KILL_POINT("message.detach");
  }
  // COMMIT(message.free): killed before: the reaper frees the message; after: free.
  member.free(handle);
  SHOAL_KILL_POINT("message.free");
}

}  // namespace shoal::channel
