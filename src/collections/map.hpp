// SPDX-License-Identifier: Apache-2.0
//
// Map: items by key, in the order in which keys were inserted, like a dict. Open addressing over
// an array of entries. Finding, putting and erasing are constant time: a larger table is filled in
// steps, some entries with each change, before the present one is full. The caller computes hashes
// and keys, and says whether two keys of the same hash are equal. Every function but size() needs
// the lock; see collections/container.hpp for what a death leaves. A function that throws
// (MemoryExhausted, CorruptArena) has changed nothing. Design: docs/design/collections.md
#pragma once

#include "collections/container.hpp"
#include "collections/item.hpp"

namespace shoal::collections {

class Map : public Container {
 public:
  struct Entry {
    uint64_t position = 0;
    uint64_t slot = 0;
    Handle item = 0;  // 0: no entry
    explicit operator bool() const noexcept { return item != 0; }
  };
  enum class Same { yes, no, stop };  // stop: ends the search; this entry is the result

  static void create(arena::Member& member, Handle handle) {
    Container::create(member, handle, ContainerKind::map);
  }
  Map(arena::Arena& arena, Handle handle) : Container(arena, handle, ContainerKind::map) {}

  // The entry with this hash for which same(item, position) returns yes or stop.
  template <class IsSame>
  [[nodiscard]] Entry find(uint64_t hash, IsSame&& same) const;
  // The entry whose key is canonical and has these bytes.
  [[nodiscard]] Entry find(uint64_t hash, Bytes key) const;

  // Releases the lock. Then, without the lock, makes the next table, if the map will need a large
  // one soon: allocating that much memory takes milliseconds.
  void unlock(arena::Member& member);

  // Adds an entry at the end. The caller has checked that no other entry has its key.
  void insert(arena::Member& member, uint64_t hash, Handle item);
  // Replaces the entry's item; returns the old one, MEMBER(me).
  [[nodiscard]] Handle replace(arena::Member& member, const Entry& entry, Handle item);
  // Returns the item, MEMBER(me).
  [[nodiscard]] Handle erase(arena::Member& member, const Entry& entry);

  // Positions of entries: [begin(), end()). Positions whose item is 0 are erased entries.
  [[nodiscard]] uint64_t begin() const { return table().begin.load(); }
  [[nodiscard]] uint64_t end() const { return table().used.load(); }
  [[nodiscard]] Handle at(uint64_t position) const;
  // For at(position) != 0.
  [[nodiscard]] Entry entry_at(uint64_t position) const;
  [[nodiscard]] uint64_t hash_at(uint64_t position) const;

 private:
  // Visits the slots of a hash in a table: calls use(slot, position) until it returns true.
  template <class Use>
  static void each_of(Table& table, uint64_t hash, Use&& use);
  Table& with_room(arena::Member& member);
  void grow_on(arena::Member& member, Table& now);
  [[nodiscard]] static bool needs_next(const Table& now);
  [[nodiscard]] uint64_t slots_of_next(const Table& now) const;
  void ask_for_next(arena::Member& member, const Table& now);
  void make_next(arena::Member& member, uint64_t slots) noexcept;
  void begin_growth(arena::Member& member, const Table& now, Handle next) noexcept;
  void fill_next(Table& now, uint64_t most_slots, uint64_t most_entries);
  void follow(const Entry& entry, uint64_t hash, Handle item);
  Table& make_whole_table(arena::Member& member, Table& now);
  Table& adopt(arena::Member& member, Handle larger, uint64_t used);
  static void copy_entry(Table& from, uint64_t i, Table& made, uint64_t to);
  static uint64_t free_slot(Table& table, uint64_t hash);

  uint64_t wanted_slots_ = 0;  // of the table that unlock() makes; 0 = none
};

template <class Use>
void Map::each_of(Table& table, uint64_t hash, Use&& use) {
  const uint64_t mask = table.slots - 1;
  uint64_t slot = hash & mask;
  for (uint64_t looked = 0; looked < table.slots; ++looked, slot = (slot + 1) & mask) {
    // order: relaxed, here and below; under the lock
    const uint32_t content = table.slot_array()[slot].load(os::relaxed);
    if (content == kSlotEmpty) return;
    const uint64_t position = uint64_t{content} - kSlotFirst;
    if (content == kSlotErased || position >= table.capacity) continue;
    if (table.hashes()[position].load(os::relaxed) != hash) continue;
    if (use(slot, position)) return;
  }
}

template <class IsSame>
Map::Entry Map::find(uint64_t hash, IsSame&& same) const {
  Table& now = table();
  Entry found;
  each_of(now, hash, [&](uint64_t slot, uint64_t position) {
    const Handle item = now.items()[position].load(os::relaxed);  // order: relaxed; as above
    if (item == 0 || same(item, position) == Same::no) return false;
    found = {position, slot, item};
    return true;
  });
  return found;
}

}  // namespace shoal::collections
