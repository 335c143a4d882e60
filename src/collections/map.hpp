// SPDX-License-Identifier: Apache-2.0
//
// Map: items by key, in the order in which the keys came, as a dict has them. Open addressing over
// an array of entries; finding, putting and erasing are constant time (amortised: when the entries
// are used up, a new table is made under the lock). Hashes and keys come from the caller; whether
// two keys of the same hash are equal is asked of him. Every function but size() needs the lock;
// see collections/container.hpp for what a death leaves. What throws (MemoryExhausted,
// CorruptArena) has changed nothing. Design: docs/design/collections.md
#pragma once

#include "collections/container.hpp"
#include "collections/item.hpp"

namespace shoal::collections {

class Map : public Container {
 public:
  struct Entry {
    uint64_t position = 0;
    uint64_t slot = 0;
    Handle item = 0;  // 0: there is none
    explicit operator bool() const noexcept { return item != 0; }
  };
  enum class Same { yes, no, stop };  // stop: the search ends and finds this one

  static void create(arena::Member& member, Handle handle) {
    Container::create(member, handle, ContainerKind::map);
  }
  Map(arena::Arena& arena, Handle handle) : Container(arena, handle, ContainerKind::map) {}

  // The entry with this hash for which same(item, position) says yes or stop.
  template <class IsSame>
  [[nodiscard]] Entry find(uint64_t hash, IsSame&& same) const;
  // The entry whose key is canonical and has these bytes.
  [[nodiscard]] Entry find(uint64_t hash, Bytes key) const;

  // A new entry at the end; the caller knows that no other has its key.
  void insert(arena::Member& member, uint64_t hash, Handle item);
  // The entry's item becomes this one; returns the one before, MEMBER(me).
  [[nodiscard]] Handle replace(arena::Member& member, const Entry& entry, Handle item);
  // Returns the item, MEMBER(me).
  [[nodiscard]] Handle erase(arena::Member& member, const Entry& entry);

  // Positions of entries: [begin(), end()), those with item 0 left out.
  [[nodiscard]] uint64_t begin() const { return table().begin.load(); }
  [[nodiscard]] uint64_t end() const { return table().used.load(); }
  [[nodiscard]] Handle at(uint64_t position) const;
  // For at(position) != 0.
  [[nodiscard]] Entry entry_at(uint64_t position) const;
  [[nodiscard]] uint64_t hash_at(uint64_t position) const;

 private:
  Table& with_room(arena::Member& member);
  static uint64_t free_slot(Table& table, uint64_t hash);
};

template <class IsSame>
Map::Entry Map::find(uint64_t hash, IsSame&& same) const {
  Table& now = table();
  const uint64_t mask = now.slots - 1;
  uint64_t slot = hash & mask;
  for (uint64_t looked = 0; looked < now.slots; ++looked, slot = (slot + 1) & mask) {
    // order: relaxed, here and below; under the lock
    const uint32_t content = now.slot_array()[slot].load(os::relaxed);
    if (content == kSlotEmpty) break;
    const uint64_t position = uint64_t{content} - kSlotFirst;
    if (content == kSlotErased || position >= now.capacity) continue;
    if (now.hashes()[position].load(os::relaxed) != hash) continue;
    const Handle item = now.items()[position].load(os::relaxed);
    if (item != 0 && same(item, position) != Same::no) return {position, slot, item};
  }
  return {};
}

}  // namespace shoal::collections
