// SPDX-License-Identifier: Apache-2.0
#include "collections/map.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "os/clock.hpp"
#include "testing/kill_point.hpp"

namespace shoal::collections {

namespace {

constexpr uint64_t kLeastSlots = 8;
// A table with `slots` slots has two thirds as many entries, so that probe sequences stay short.
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
    // order: relaxed; as get() in table.hpp
    if (table.slot_array()[slot].load(os::relaxed) < kSlotFirst) return slot;
  }
  throw arena::CorruptArena("a map's index has no free slot");
}

// ---- Growth in steps ----------------------------------------------------------------------------

// The work that each change does for the next table. When it begins, a quarter of the present
// table's entries are still free: enough changes to clear six slots for each entry, and to copy
// all entries.
constexpr uint64_t kSlotsAStep = 64;
constexpr uint64_t kEntriesAStep = 16;

void Map::copy_entry(Table& from, uint64_t i, Table& made, uint64_t to) {
  const uint64_t hash = get(from.hashes()[i]);
  set(made.items()[to], get(from.items()[i]));
  set(made.hashes()[to], hash);
  // order: relaxed; as set() in table.hpp
  made.slot_array()[free_slot(made, hash)].store(static_cast<uint32_t>(to + kSlotFirst),
                                                 os::relaxed);
}

// A larger table is made without the lock: memory used for the first time costs 0.25 ms per MB.
constexpr uint64_t kMostSlotsUnderLock = 4096;
// A thread that went to make a table may die or be stopped. After capacity / kAskAgainAfter more
// changes another thread makes one. At least three quarters of the entries that were free are free
// then.
constexpr uint64_t kAskAgainAfter = 16;
constexpr int64_t kWaitToBringNs = 10'000'000;

// Three quarters of the entries are used, or more than a sixth of the slots are erased.
bool Map::needs_next(const Table& now) {
  return get(now.used) * 4 >= now.capacity * 3 || get(now.erased) * 6 > now.slots;
}

uint64_t Map::slots_of_next(const Table& now) const {
  const uint64_t expected = size() + now.capacity - get(now.used);
  return std::bit_ceil(std::max({size() * 3, expected * 2, kLeastSlots}));
}

void Map::ask_for_next(arena::Member& member, const Table& now) {
  Growth& growth = state().growth;
  const uint64_t asked = get(growth.asked);
  if (asked != 0 && changes() < asked + now.capacity / kAskAgainAfter) return;
  set(growth.asked, changes() + 1);
  const uint64_t slots = slots_of_next(now);
  if (slots > kMostSlotsUnderLock) {
    wanted_slots_ = slots;
    return;
  }
  try {
    begin_growth(member, now, make_table(member, handle(), entries_for(slots), slots, true));
  } catch (const arena::MemoryExhausted&) {
    return;  // thrown by make_whole_table(), if it comes to that
  }
}

void Map::unlock(arena::Member& member) {
  const uint64_t slots = std::exchange(wanted_slots_, 0);
  let_go(member);
  if (slots != 0) make_next(member, slots);
}

// Called without the lock. If it fails, or the map needs a table of another size by then, nothing
// is lost.
void Map::make_next(arena::Member& member, uint64_t slots) noexcept {
  Handle next = 0;
  try {
    next = make_table(member, handle(), entries_for(slots), slots, true);
    if (sync::is_locked(lock(member, os::monotonic_ns() + kWaitToBringNs))) {
      const Table& now = table();
      const uint64_t wanted = slots_of_next(now);
      const bool fits = needs_next(now) && slots >= wanted && slots / 2 <= wanted;
      if (get(state().growth.table) == 0 && fits) {
        begin_growth(member, now, std::exchange(next, 0));
      }
      let_go(member);
    }
  } catch (const arena::MemoryExhausted&) {
    return;  // thrown by make_whole_table(), if it comes to that
  } catch (const arena::CorruptArena&) {
    return free_bag(member, next);  // thrown by the next change
  }
  if (next != 0) free_bag(member, next);
}

void Map::begin_growth(arena::Member& member, const Table& now, Handle next) noexcept {
  Growth& growth = state().growth;
  set(growth.cleared, 0);
  set(growth.from, get(now.begin));
  set(growth.to, 0);
  set(growth.table, next);
  // COMMIT(map.growth.begin): killed before: the scan frees it; after: the next lock() drops it
  member.give_to_block(next, handle());
  SHOAL_KILL_POINT("map.growth.begin");
}

void Map::fill_next(Table& now, uint64_t most_slots, uint64_t most_entries) {
  Growth& growth = state().growth;
  Table& next = open_table(*arena_, get(growth.table), handle());
  uint64_t cleared = get(growth.cleared);
  for (; cleared < next.slots && most_slots > 0; ++cleared, --most_slots) {
    next.slot_array()[cleared].store(kSlotEmpty, os::relaxed);  // order: relaxed; as set()
  }
  set(growth.cleared, cleared);
  if (cleared < next.slots) return;
  const uint64_t used = get(now.used);
  uint64_t from = get(growth.from);
  uint64_t to = get(growth.to);
  for (; from < used && to < next.capacity && most_entries > 0; ++from, --most_entries) {
    if (get(now.items()[from]) != 0) copy_entry(now, from, next, to++);
  }
  set(growth.from, from);
  set(growth.to, to);
}

// A step towards the next table, if one will be needed soon.
void Map::grow_on(arena::Member& member, Table& now) {
  if (!needs_next(now)) return;
  if (get(state().growth.table) == 0) ask_for_next(member, now);
  if (get(state().growth.table) != 0) fill_next(now, kSlotsAStep, kEntriesAStep);
}

// Repeats in the next table that the entry's item was replaced by `item` (0: erased).
void Map::follow(const Entry& entry, uint64_t hash, Handle item) {
  Growth& growth = state().growth;
  const Handle handle_of_next = get(growth.table);
  if (handle_of_next == 0) return;
  if (entry.position < get(growth.from) && get(growth.to) > 0) {
    Table& next = open_table(*arena_, handle_of_next, handle());
    each_of(next, hash, [&](uint64_t slot, uint64_t position) {
      if (get(next.items()[position]) != entry.item) return false;
      set(next.items()[position], item);
      if (item != 0) return true;
      next.slot_array()[slot].store(kSlotErased, os::relaxed);  // order: relaxed; as set()
      set(next.erased, get(next.erased) + 1);
      return true;
    });
  }
  // Erasing at the end frees positions: an entry that is put there later is not copied yet.
  set(growth.from, std::min(get(growth.from), get(table().used)));
}

// The table `larger`, MEMBER(me), with `used` entries, becomes the map's. Leaves out erased entries
// at both ends: some may have been erased since they were copied.
Table& Map::adopt(arena::Member& member, Handle larger, uint64_t used) {
  Table& made = *arena_->at<Table>(larger);
  uint64_t begin = 0;
  while (used > 0 && get(made.items()[used - 1]) == 0) --used;
  while (begin < used && get(made.items()[begin]) == 0) ++begin;
  const Handle old = state().table.load();
  set(state().growth.asked, 0);
  prepare_table(member, larger);
  commit(member, Swap{larger, begin, used, size(), 0, 0, 0, 0, false});
  free_bag(member, old);
  return made;
}

Table& Map::make_whole_table(arena::Member& member, Table& now) {
  const uint64_t live = size();
  const uint64_t used = get(now.used);
  const uint64_t slots = std::bit_ceil(std::max(live * 3, kLeastSlots));
  const Handle larger = make_table(member, handle(), entries_for(slots), slots);
  Table& made = *arena_->at<Table>(larger);
  uint64_t to = 0;
  for (uint64_t i = get(now.begin); i < used && to < made.capacity; ++i) {
    if (get(now.items()[i]) != 0) copy_entry(now, i, made, to++);
  }
  return adopt(member, larger, to);
}

// The table with room for one more entry. Replaces the present one if its entries are used up, or
// if so many slots are erased that an unsuccessful search would be long.
Table& Map::with_room(arena::Member& member) {
  Table& now = table();
  grow_on(member, now);
  const uint64_t used = get(now.used);
  if (used < now.capacity && get(now.erased) * 4 <= now.slots) return now;
  Growth& growth = state().growth;
  const Handle next = get(growth.table);
  if (next != 0) fill_next(now, UINT64_MAX, UINT64_MAX);  // usually nothing is left to do
  const uint64_t to = get(growth.to);
  if (next == 0 || get(growth.from) != used || to >= arena_->at<Table>(next)->capacity) {
    drop_growth(member);
    return make_whole_table(member, now);
  }
  // COMMIT(map.growth.end): killed before: the next lock() drops it; after: the scan frees it
  const bool taken = member.take_from_block(next, handle());
  SHOAL_KILL_POINT("map.growth.end");
  set(growth.table, 0);
  return taken ? adopt(member, next, to) : make_whole_table(member, now);
}

void Map::insert(arena::Member& member, uint64_t hash, Handle item) {
  Table& now = with_room(member);
  const uint64_t used = get(now.used);
  const uint64_t slot = free_slot(now, hash);
  // order: relaxed; as get() in table.hpp
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
  follow(entry, hash_at(entry.position), item);
  return entry.item;
}

// Erasing at either end moves that end past all erased entries, so that removing entries there one
// after the other stays cheap.
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
  follow(entry, hash_at(entry.position), 0);
  grow_on(member, now);
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
