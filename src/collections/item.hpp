// SPDX-License-Identifier: Apache-2.0
//
// Item: one block that holds an encoded value, and in a map its key as well. It never changes once
// it is in a container. It may refer to shared blocks (further containers, locks, queues, values
// too large to be copied under a lock): each of these has a link to the item (Member::link).
//
// The block:
//
//   ItemHeader | references x u64 handle | references x u32 place | key | shown key | value
//
// Invariants:
// 1. `place` says where the referenced block may have a link to this item: kNoPlace, or the place
//    was written before the link was made. So who ends the item finds all its links, and removing
//    one that is not there, or not there any more, does nothing.
// 2. While an item is made or freed it is MEMBER(me); in a container it is BLOCK(container). The
//    member that frees it takes back its references; if it dies first, its reaper's end hook does.
//
// Any thread of any member; making one may throw MemoryExhausted; nothing blocks.
// Design: docs/design/collections.md
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "arena/arena.hpp"
#include "os/atomic.hpp"

namespace shoal::collections {

using arena::Handle;
using Bytes = std::span<const std::byte>;

// How a key is compared. canonical: equal keys have equal bytes. opaque: the program's own equality
// decides, asked for keys of the same hash.
enum class KeyKind : uint32_t { none = 0, canonical = 1, opaque = 2 };

struct ItemHeader {
  uint64_t check;  // kItemCheck ^ the block's handle
  uint32_t unused;
  uint32_t references;
  uint32_t key_size;
  uint32_t shown_size;  // the key as the program gave it, if the canonical form is another value
  uint32_t value_size;
  uint8_t key_kind;
  uint8_t is_far;     // the value lies in the first reference; `value` then is its size, a u64
  uint16_t attached;  // so many of the next references are the attachments
};
static_assert(sizeof(ItemHeader) == 32);

struct ItemParts {
  Bytes key;
  Bytes shown_key;
  Bytes value;
  std::span<const Handle> references;
  KeyKind key_kind = KeyKind::none;
  bool is_far = false;
  uint16_t attached = 0;
};

// A new item, MEMBER(me). The caller holds all referenced blocks. Throws MemoryExhausted; then
// nothing is linked.
Handle make_item(arena::Member& member, const ItemParts& parts);

// An item's parts, checked against its block; the pointers go into the arena. Throws CorruptArena.
ItemParts open_item(const arena::Arena& arena, Handle item);

// Removes the links of an item that is MEMBER(me), and frees it. Does nothing if the item
// has another owner: the child of a fork also has the handles of items that its parent was about to
// insert.
void free_item(arena::Member& member, Handle item) noexcept;
// The same for an item that is BLOCK(parent).
void free_item_of(arena::Member& member, Handle item, Handle parent) noexcept;

// The end hook: if the block is an item, removes its links.
void end_item(arena::Arena& arena, arena::Member& member, Handle block);

}  // namespace shoal::collections
