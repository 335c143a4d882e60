// SPDX-License-Identifier: Apache-2.0
//
// order: relaxed, for all words of tables here: they are changed under the lock only.
#include "collections/map.hpp"

#include <bit>
#include <cstring>

namespace shoal::collections {

namespace {

uint64_t get(const os::Atomic<uint64_t>& word) noexcept { return word.load(os::relaxed); }
void set(os::Atomic<uint64_t>& word, uint64_t value) noexcept { word.store(value, os::relaxed); }

constexpr uint64_t kLeastSlots = 8;
// Entries for so many slots: two thirds, so that probes stay short.
constexpr uint64_t entries_for(uint64_t slots) noexcept { return slots * 2 / 3; }

}  // namespace

Map::Entry Map::find(uint64_t hash, Bytes key) const {
  return find(hash, [&](Handle item, uint64_t) {
    const ItemParts parts = open_item(*arena_, item);
    const bool same = parts.key_kind == KeyKind::canonical && parts.key.size() == key.size() &&
                      std::memcmp(parts.key.data(), key.data(), key.size()) == 0;
    return same ? Same::yes : Same::no;
  });
}

uint64_t Map::free_slot(Table& table, uint64_t hash) {
  const uint64_t mask = table.slots - 1;
  uint64_t slot = hash & mask;
  for (uint64_t looked = 0; looked < table.slots; ++looked, slot = (slot + 1) & mask) {
    if (table.slot_array()[slot].load(os::relaxed) < kSlotFirst) return slot;
  }
  throw arena::CorruptArena("a map's index has no free slot");
}

// The table, after making one if its entries are used up, or if so many slots are erased that a
// search for what is not there would be long.
Table& Map::with_room(arena::Member& member) {
  Table& now = table();
  const uint64_t begin = get(now.begin);
  const uint64_t used = get(now.used);
  if (used < now.capacity && get(now.erased) * 4 <= now.slots) return now;
  const uint64_t live = size();
  const uint64_t slots = std::bit_ceil(live * 3 < kLeastSlots ? kLeastSlots : live * 3);
  const Handle larger = make_table(member, handle(), entries_for(slots), slots);
  Table& made = *arena_->at<Table>(larger);
  uint64_t to = 0;
  for (uint64_t i = begin; i < used && to < made.capacity; ++i) {
    const Handle item = get(now.items()[i]);
    if (item == 0) continue;
    const uint64_t hash = get(now.hashes()[i]);
    set(made.items()[to], item);
    set(made.hashes()[to], hash);
    made.slot_array()[free_slot(made, hash)].store(static_cast<uint32_t>(to + kSlotFirst),
                                                   os::relaxed);
    ++to;
  }
  const Handle old = state().table.load();
  prepare_table(member, larger);
  commit(member, Swap{larger, 0, to, to, 0, 0, 0, 0, false});
  free_bag(member, old);
  return made;
}

void Map::insert(arena::Member& member, uint64_t hash, Handle item) {
  Table& now = with_room(member);
  const uint64_t used = get(now.used);
  const uint64_t slot = free_slot(now, hash);
  const bool was_erased = now.slot_array()[slot].load(os::relaxed) == kSlotErased;
  prepare(member, item);
  commit(member, Put{used, item, 0, get(now.begin), used + 1, size() + 1, true, hash, slot,
                     static_cast<uint32_t>(used + kSlotFirst)});
  if (was_erased && get(now.erased) > 0) set(now.erased, get(now.erased) - 1);
}

Handle Map::replace(arena::Member& member, const Entry& entry, Handle item) {
  const Table& now = table();
  prepare(member, item);
  commit(member, Put{entry.position, item, entry.item, get(now.begin), get(now.used), size(), false,
                     hash_at(entry.position), entry.slot,
                     static_cast<uint32_t>(entry.position + kSlotFirst)});
  return entry.item;
}

// Erasing at either end moves that end past all erased entries, so that taking entries off there
// one after the other stays cheap.
Handle Map::erase(arena::Member& member, const Entry& entry) {
  Table& now = table();
  uint64_t begin = get(now.begin);
  uint64_t used = get(now.used);
  const auto is_gone = [&](uint64_t i) { return i == entry.position || get(now.items()[i]) == 0; };
  if (entry.position == begin) {
    while (begin < used && is_gone(begin)) ++begin;
  } else if (entry.position + 1 == used) {
    while (used > begin && is_gone(used - 1)) --used;
  }
  const uint64_t live = size() - 1;
  commit(member, Put{entry.position, 0, entry.item, begin, used, live, true,
                     hash_at(entry.position), entry.slot, kSlotErased});
  set(now.erased, get(now.erased) + 1);
  return entry.item;
}

Handle Map::at(uint64_t position) const {
  Table& now = table();
  if (position >= now.capacity) throw arena::CorruptArena("no such entry of a map");
  return get(now.items()[position]);
}

uint64_t Map::hash_at(uint64_t position) const {
  Table& now = table();
  if (position >= now.capacity) throw arena::CorruptArena("no such entry of a map");
  return get(now.hashes()[position]);
}

Map::Entry Map::entry_at(uint64_t position) const {
  const Handle wanted = at(position);
  return find(hash_at(position),
              [&](Handle item, uint64_t) { return item == wanted ? Same::yes : Same::no; });
}

}  // namespace shoal::collections
