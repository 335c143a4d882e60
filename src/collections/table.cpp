// SPDX-License-Identifier: Apache-2.0
#include "collections/table.hpp"

#include <new>
#include <string>

#include "collections/item.hpp"
#include "testing/kill_point.hpp"

namespace shoal::collections {

namespace {

constexpr uint64_t kTableCheck = 0x656c626174686873;  // "shhtable"

uint64_t bytes_for(uint64_t capacity, uint64_t slots) noexcept {
  const uint64_t per_entry = slots == 0 ? sizeof(uint64_t) : 2 * sizeof(uint64_t);
  return sizeof(Table) + capacity * per_entry + slots * sizeof(uint32_t);
}

// nullptr: no table, or its sizes exceed its block.
Table* table_at(const arena::Arena& arena, Handle handle) noexcept {
  const size_t room = arena.block_size(handle);
  if (room < sizeof(Table)) return nullptr;
  auto* const table = arena.at<Table>(handle);
  const bool fits = table->check == (kTableCheck ^ handle) && table->capacity <= room &&
                    table->slots <= room && bytes_for(table->capacity, table->slots) <= room;
  return fits ? table : nullptr;
}

void empty(arena::Member& member, Table& table) noexcept {
  const uint64_t used = table.used.load() < table.capacity ? table.used.load() : table.capacity;
  for (uint64_t i = table.begin.load(); i < used; ++i) {
    const Handle item = table.items()[i].load();
    // COMMIT(bag.take): killed before: in the bag; after: the dead member's, still in the bag
    const bool taken = item != 0 && member.take_from_block(item, table.parent);
    SHOAL_KILL_POINT("bag.take");
    // COMMIT(bag.begin): killed before: as above; after: the dead member's, not in the bag
    table.begin.store(i + 1);
    SHOAL_KILL_POINT("bag.begin");
    if (taken) free_item(member, item);
  }
}

}  // namespace

Handle make_table(arena::Member& member, Handle parent, uint64_t capacity, uint64_t slots,
                  bool uncleared) {
  const arena::Arena& arena = member.arena();
  if (capacity > kMostEntries) {
    throw arena::MemoryExhausted("a container can have at most 4,294,967,293 entries");
  }
  const Handle handle = member.allocate(bytes_for(capacity, slots));
  auto* const table = new (arena.address(handle)) Table{};
  table->parent = parent;
  table->capacity = capacity;
  table->slots = slots;
  // order: relaxed, here and where a table is filled: no other thread sees it before it is in use
  for (uint64_t i = 0; i < slots && !uncleared; ++i)
    table->slot_array()[i].store(kSlotEmpty, os::relaxed);
  table->check = kTableCheck ^ handle;
  return handle;
}

Table& open_table(const arena::Arena& arena, Handle handle, Handle parent) {
  Table* const table = table_at(arena, handle);
  if (table == nullptr || table->parent != parent) {
    throw arena::CorruptArena("no container table at offset " + std::to_string(handle));
  }
  return *table;
}

void free_bag(arena::Member& member, Handle handle) noexcept {
  if (member.arena().owner_word(handle).load() != arena::owner_member(member.incarnation())) return;
  Table* const table = table_at(member.arena(), handle);
  if (table != nullptr) {
    empty(member, *table);
    table->check = 0;
  }
  // COMMIT(bag.free): killed before: the reaper frees it; after: free
  member.free(handle);
  SHOAL_KILL_POINT("bag.free");
}

void end_table(arena::Arena& arena, arena::Member& member, Handle block) {
  Table* const table = table_at(arena, block);
  if (table == nullptr) return;
  empty(member, *table);
  table->check = 0;
}

}  // namespace shoal::collections
