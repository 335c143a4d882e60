// SPDX-License-Identifier: Apache-2.0
//
// Table: one block with the handles of a container's items, in their order; a map's table also has
// the hashes and the index. A container has one table at a time. It makes a new one to grow, or to
// change many items at once; the old one then is a bag: a list of items to be freed.
//
// The block:  Table | items x u64 | hashes x u64 | slots x u32      (the last two: maps only)
// Invariants:
// 1. Items outside of [begin, used) are undefined. A 0 inside is the place of an erased entry.
// 2. A slot is 0 (never used), 1 (erased), or a position + 2.
// 3. begin and used are 0 until the table is in use, so that ending a table that never was in use
//    frees none of the container's items.
// 4. Freeing a bag takes an item, moves `begin` past it and frees it: an item is never freed while
//    it is in the bag. The end hook continues with the bag of a dead member. If the dead member had
//    taken the item at `begin`, the hook finds that its owner is no longer the parent and moves on;
//    the reaper frees the item.
// Design: docs/design/collections.md
#pragma once

#include <cstddef>
#include <cstdint>

#include "arena/arena.hpp"
#include "os/atomic.hpp"

namespace shoal::collections {

using arena::Handle;

struct Table {
  uint64_t check;   // kTableCheck ^ the block's handle
  uint64_t parent;  // the container: the items' owner is BLOCK(parent)
  os::Atomic<uint64_t> begin;
  os::Atomic<uint64_t> used;
  uint64_t capacity;
  uint64_t slots;  // a power of two, or 0
  // The items that came with this table: freed with it if a member dies before the table is in use.
  uint64_t fresh_begin;
  uint64_t fresh_end;
  os::Atomic<uint64_t> erased;  // number of erased slots; a hint, which a death may leave one off

  using Item = os::Atomic<uint64_t>;
  using Slot = os::Atomic<uint32_t>;
  Item* items() noexcept { return reinterpret_cast<Item*>(this + 1); }
  Item* hashes() noexcept { return items() + capacity; }
  Slot* slot_array() noexcept { return reinterpret_cast<Slot*>(hashes() + capacity); }
};
static_assert(sizeof(Table) == 72);

// How the holder of the lock reads and writes all words of containers and tables.
// order: relaxed; they change under the container's lock only, and two exchanges of the log's `op`
// fence what a death may leave half done (container.hpp)
inline uint64_t get(const os::Atomic<uint64_t>& word) noexcept { return word.load(os::relaxed); }
inline void set(os::Atomic<uint64_t>& word, uint64_t value) noexcept {
  word.store(value, os::relaxed);
}

inline constexpr uint32_t kSlotEmpty = 0;
inline constexpr uint32_t kSlotErased = 1;
inline constexpr uint32_t kSlotFirst = 2;
inline constexpr uint64_t kMostEntries = UINT32_MAX - kSlotFirst;

// An empty table, MEMBER(me). Throws MemoryExhausted. `uncleared`: its slots are undefined.
Handle make_table(arena::Member& member, Handle parent, uint64_t capacity, uint64_t slots = 0,
                  bool uncleared = false);
// Throws CorruptArena.
Table& open_table(const arena::Arena& arena, Handle handle, Handle parent);

// Frees a table that is MEMBER(me), with those of its items that are its parent's. Does nothing if
// the table has another owner.
void free_bag(arena::Member& member, Handle handle) noexcept;

// The end hook: if the block is a table, frees the items in it.
void end_table(arena::Arena& arena, arena::Member& member, Handle block);

}  // namespace shoal::collections
