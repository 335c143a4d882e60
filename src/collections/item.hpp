// SPDX-License-Identifier: Apache-2.0
//
// Item: one block that holds an encoded value, and in a map its key as well. It never changes once
// it is in a container. It may refer to shared blocks (further containers, locks, queues, values
// too large to be copied under a lock): each of those counts it (Member::store_shared).
//
// The block:  ItemHeader | references x u64 handle | key | shown key | value
// Invariants:
// 1. Of the references, the first `counted` are counted. A reference is counted before `counted`
//    says so, and taken back after `counted` has stopped saying so: a death in between leaves one
//    count too many (a block that stays until the session ends), never one too few.
// 2. While an item is made or freed it is MEMBER(me); in a container it is BLOCK(container). The
//    member that frees it takes its references back; if it dies first, the end hook does so for its
//    reaper.
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

// How a key is compared. canonical: equal keys have equal bytes. opaque: only the program's own
// equality decides, among those of the same hash.
enum class KeyKind : uint32_t { none = 0, canonical = 1, opaque = 2 };

struct ItemHeader {
  uint64_t check;  // kItemCheck ^ the block's handle
  os::Atomic<uint32_t> counted;
  uint32_t references;
  uint32_t key_size;
  uint32_t shown_size;  // the key as it was given, where the canonical form is another value
  uint32_t value_size;
  uint8_t key_kind;
  uint8_t is_far;     // the value lies in the first reference; `value` is its size, a u64
  uint16_t attached;  // so many of the next references are the value's attachments
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

// A new item, MEMBER(me). The caller holds all references. Throws MemoryExhausted; nothing is
// counted then.
Handle make_item(arena::Member& member, const ItemParts& parts);

// What an item holds, checked against its block; the pointers go into the arena. Throws
// CorruptArena.
ItemParts open_item(const arena::Arena& arena, Handle item);

// Takes the references of an item that is MEMBER(me) back and frees it; one that is not is left
// alone: the child of a fork has what its parent was about to put in.
void free_item(arena::Member& member, Handle item) noexcept;
// The same for one that is BLOCK(parent).
void free_item_of(arena::Member& member, Handle item, Handle parent) noexcept;

// The end hook: if the block is an item, takes its references back.
void end_item(arena::Arena& arena, arena::Member& member, Handle block);

}  // namespace shoal::collections
