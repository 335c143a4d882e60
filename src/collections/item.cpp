// SPDX-License-Identifier: Apache-2.0
#include "collections/item.hpp"

#include <cstring>
#include <limits>
#include <new>
#include <string>

#include "testing/kill_point.hpp"

namespace shoal::collections {

namespace {

constexpr uint64_t kItemCheck = 0x6d6574696c6f6873;  // "sholitem"

ItemHeader* header_at(const arena::Arena& arena, Handle item) noexcept {
  if (arena.block_size(item) < sizeof(ItemHeader)) return nullptr;
  auto* const header = arena.at<ItemHeader>(item);
  return header->check == (kItemCheck ^ item) ? header : nullptr;
}

Handle* references_of(ItemHeader* header) noexcept { return reinterpret_cast<Handle*>(header + 1); }

std::byte* append(std::byte* to, Bytes bytes) noexcept {
  if (!bytes.empty()) std::memcpy(to, bytes.data(), bytes.size());
  return to + bytes.size();
}

void take_references_back(arena::Member& member, ItemHeader& header) noexcept {
  for (uint32_t left = header.counted.load(); left > 0; --left) {
    // COMMIT(item.uncount): killed before: the reaper takes it back; after: one count too many
    header.counted.store(left - 1);
    SHOAL_KILL_POINT("item.uncount");
    const Handle block = references_of(&header)[left - 1];
    if (member.unstore_shared(block)) arena::end_block(member, block);
  }
}

}  // namespace

Handle make_item(arena::Member& member, const ItemParts& parts) {
  constexpr size_t kMost = std::numeric_limits<uint32_t>::max();
  if (parts.key.size() > kMost || parts.shown_key.size() > kMost || parts.value.size() > kMost) {
    throw arena::MemoryExhausted("a key or inline value can have at most 4 GiB");
  }
  const arena::Arena& arena = member.arena();
  const size_t handles = parts.references.size() * sizeof(Handle);
  const Handle item = member.allocate(sizeof(ItemHeader) + handles + parts.key.size() +
                                      parts.shown_key.size() + parts.value.size());
  auto* const header = new (arena.address(item)) ItemHeader{};
  header->references = static_cast<uint32_t>(parts.references.size());
  header->key_size = static_cast<uint32_t>(parts.key.size());
  header->shown_size = static_cast<uint32_t>(parts.shown_key.size());
  header->value_size = static_cast<uint32_t>(parts.value.size());
  header->key_kind = static_cast<uint8_t>(parts.key_kind);
  header->is_far = parts.is_far ? 1 : 0;
  header->attached = parts.attached;
  auto* to = reinterpret_cast<std::byte*>(references_of(header));
  to = append(to, std::as_bytes(parts.references));
  to = append(to, parts.key);
  to = append(to, parts.shown_key);
  append(to, parts.value);
  header->check = kItemCheck ^ item;
  for (uint32_t i = 0; i < header->references; ++i) {
    if (!member.store_shared(parts.references[i])) continue;
    // COMMIT(item.count): killed before: one count too many; after: the reaper takes it back
    header->counted.store(i + 1);
    SHOAL_KILL_POINT("item.count");
  }
  return item;
}

ItemParts open_item(const arena::Arena& arena, Handle item) {
  ItemHeader* const header = header_at(arena, item);
  const size_t room = header == nullptr ? 0 : arena.block_size(item) - sizeof(ItemHeader);
  const size_t handles = header == nullptr ? 0 : size_t{header->references} * sizeof(Handle);
  const size_t key = header == nullptr ? 0 : header->key_size;
  const size_t shown = header == nullptr ? 0 : header->shown_size;
  const size_t value = header == nullptr ? 0 : header->value_size;
  const size_t apart = header == nullptr ? 0 : size_t{header->is_far} + header->attached;
  if (header == nullptr || apart > header->references || handles > room || key > room - handles ||
      shown > room - handles - key || value > room - handles - key - shown) {
    throw arena::CorruptArena("no container item at offset " + std::to_string(item));
  }
  const auto* const at = reinterpret_cast<const std::byte*>(references_of(header)) + handles;
  return {{at, key},
          {at + key, shown},
          {at + key + shown, value},
          {references_of(header), handles / sizeof(Handle)},
          static_cast<KeyKind>(header->key_kind),
          header->is_far != 0,
          header->attached};
}

void free_item(arena::Member& member, Handle item) noexcept {
  if (member.arena().owner_word(item).load() != arena::owner_member(member.incarnation())) return;
  ItemHeader* const header = header_at(member.arena(), item);
  if (header != nullptr) {
    if (header->references != 0) take_references_back(member, *header);
    header->check = 0;
  }
  // COMMIT(item.free): killed before: the reaper frees it; after: free
  member.free(item);
  SHOAL_KILL_POINT("item.free");
}

void free_item_of(arena::Member& member, Handle item, Handle parent) noexcept {
  // COMMIT(item.take): killed before: unchanged; after: this member's, the scan frees it
  const bool taken = member.take_from_block(item, parent);
  SHOAL_KILL_POINT("item.take");
  if (taken) free_item(member, item);
}

void end_item(arena::Arena& arena, arena::Member& member, Handle block) {
  ItemHeader* const header = header_at(arena, block);
  if (header == nullptr) return;
  take_references_back(member, *header);
  header->check = 0;
}

}  // namespace shoal::collections
