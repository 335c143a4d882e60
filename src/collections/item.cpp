// SPDX-License-Identifier: Apache-2.0
#include "collections/item.hpp"

#include <cstring>
#include <limits>
#include <new>
#include <string>

#include "arena/record.hpp"
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

os::Atomic<uint32_t>* places_of(ItemHeader* header) noexcept {
  return reinterpret_cast<os::Atomic<uint32_t>*>(references_of(header) + header->references);
}

// Bytes of the references and their places.
constexpr size_t link_bytes(size_t references) noexcept {
  return references * sizeof(Handle) + (references + 1) / 2 * 8;
}

void unlink_all(arena::Member& member, Handle item, ItemHeader& header) noexcept {
  const size_t room = member.arena().block_size(item) - sizeof(ItemHeader);
  if (link_bytes(header.references) > room) return;  // corrupt
  for (uint32_t i = header.references; i-- > 0;) {
    const uint32_t place = places_of(&header)[i].load();
    if (place == arena::kNoPlace) continue;
    const Handle block = references_of(&header)[i];
    if (member.unlink(block, item, place)) arena::end_block(member, block);
  }
}

}  // namespace

Handle make_item(arena::Member& member, const ItemParts& parts) {
  constexpr size_t kMost = std::numeric_limits<uint32_t>::max();
  if (parts.key.size() > kMost || parts.shown_key.size() > kMost || parts.value.size() > kMost) {
    throw arena::MemoryExhausted("a key or inline value can have at most 4 GiB");
  }
  const arena::Arena& arena = member.arena();
  const size_t links = link_bytes(parts.references.size());
  const Handle item = member.allocate(sizeof(ItemHeader) + links + parts.key.size() +
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
  append(to, std::as_bytes(parts.references));
  to = append(to + links, parts.key);
  to = append(to, parts.shown_key);
  append(to, parts.value);
  for (uint32_t i = 0; i < header->references; ++i)
    new (&places_of(header)[i]) os::Atomic<uint32_t>(arena::kNoPlace);
  header->check = kItemCheck ^ item;
  try {
    for (uint32_t i = 0; i < header->references; ++i)
      static_cast<void>(member.link(parts.references[i], item, places_of(header)[i]));
  } catch (const std::exception&) {
    free_item(member, item);
    throw;
  }
  return item;
}

ItemParts open_item(const arena::Arena& arena, Handle item) {
  ItemHeader* const header = header_at(arena, item);
  const size_t room = header == nullptr ? 0 : arena.block_size(item) - sizeof(ItemHeader);
  const size_t links = header == nullptr ? 0 : link_bytes(header->references);
  const size_t key = header == nullptr ? 0 : header->key_size;
  const size_t shown = header == nullptr ? 0 : header->shown_size;
  const size_t value = header == nullptr ? 0 : header->value_size;
  const size_t apart = header == nullptr ? 0 : size_t{header->is_far} + header->attached;
  if (header == nullptr || apart > header->references || links > room || key > room - links ||
      shown > room - links - key || value > room - links - key - shown) {
    throw arena::CorruptArena("no container item at offset " + std::to_string(item));
  }
  const auto* const at = reinterpret_cast<const std::byte*>(references_of(header)) + links;
  return {{at, key},
          {at + key, shown},
          {at + key + shown, value},
          {references_of(header), header->references},
          static_cast<KeyKind>(header->key_kind),
          header->is_far != 0,
          header->attached};
}

void free_item(arena::Member& member, Handle item) noexcept {
  if (member.arena().owner_word(item).load() != arena::owner_member(member.incarnation())) return;
  ItemHeader* const header = header_at(member.arena(), item);
  if (header != nullptr) {
    unlink_all(member, item, *header);
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
  unlink_all(member, block, *header);
  header->check = 0;
}

}  // namespace shoal::collections
