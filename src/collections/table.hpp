// SPDX-License-Identifier: Apache-2.0
//
// Table: one block with the handles of a container's items, in their order; a map's has the hashes
// and the index beside. A container has one at a time and makes a new one to grow, or to change
// many items in one step; the old one then is a bag: what is to be freed.
//
// The block:  Table | items x u64 | hashes x u64 | slots x u32      (the last two: maps only)
// Invariants:
// 1. Items outside of [begin, used) mean nothing. A 0 in there is the place of an erased entry.
// 2. A slot is 0 (never used), 1 (erased), or a position + 2.
// 3. begin and used are 0 until the table is in use, so that the end of one that never was frees
//    nothing of the container's.
// 4. Whoever frees a bag takes an item, moves `begin` past it and frees it: what is freed is not in
//    the bag. The end hook goes on with the bag of a dead member: it finds an item that the dead
//    had taken to be the reaper's, moves on, and the reaper frees it.
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
  // Items that came with this table; what a death before the table is in use leaves to be freed.
  uint64_t fresh_begin;
  uint64_t fresh_end;
  os::Atomic<uint64_t> erased;  // slots that are erased; a hint, which a death may leave one off

  using Item = os::Atomic<uint64_t>;
  using Slot = os::Atomic<uint32_t>;
  Item* items() noexcept { return reinterpret_cast<Item*>(this + 1); }
  Item* hashes() noexcept { return items() + capacity; }
  Slot* slot_array() noexcept { return reinterpret_cast<Slot*>(hashes() + capacity); }
};
static_assert(sizeof(Table) == 72);

// How all words of containers and tables are read and written by whoever holds the lock.
// order: relaxed; they change under the container's lock only, and what a death leaves half done is
// fenced by two exchanges of the log's `op` (container.hpp)
inline uint64_t get(const os::Atomic<uint64_t>& word) noexcept { return word.load(os::relaxed); }
inline void set(os::Atomic<uint64_t>& word, uint64_t value) noexcept {
  word.store(value, os::relaxed);
}

inline constexpr uint32_t kSlotEmpty = 0;
inline constexpr uint32_t kSlotErased = 1;
inline constexpr uint32_t kSlotFirst = 2;
inline constexpr uint64_t kMostEntries = UINT32_MAX - kSlotFirst;

// A table, MEMBER(me), empty. Throws MemoryExhausted. `uncleared`: its slots are not empty yet.
Handle make_table(arena::Member& member, Handle parent, uint64_t capacity, uint64_t slots = 0,
                  bool uncleared = false);
// Throws CorruptArena.
Table& open_table(const arena::Arena& arena, Handle handle, Handle parent);

// Frees a table that is MEMBER(me), with the items in it that are its parent's; another is left
// alone.
void free_bag(arena::Member& member, Handle handle) noexcept;

// The end hook: if the block is a table, frees what is in it.
void end_table(arena::Arena& arena, arena::Member& member, Handle block);

}  // namespace shoal::collections
