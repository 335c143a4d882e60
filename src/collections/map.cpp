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
    // order: relaxed; as get() in table.hpp
    if (table.slot_array()[slot].load(os::relaxed) < kSlotFirst) return slot;
  }
  throw arena::CorruptArena("a map's index has no free slot");
}

// ---- Growth in steps ----------------------------------------------------------------------------

// What a change does for the next table. A quarter of the present table's entries are still to come
// when it begins: enough changes to clear six slots for each entry that there is, and to copy it.
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

// A larger one is made without the lock: memory that nobody had before costs 0.25 ms for each MB.
constexpr uint64_t kMostSlotsUnderLock = 4096;
// He who goes to make one may die or be stopped: after so many changes, a share of the entries that
// there are, the next one goes. Half of those still to come are left to fill it then.
constexpr uint64_t kAskAgainAfter = 16;
constexpr int64_t kWaitToBringNs = 10'000'000;

// Three quarters of the entries are used, or many of the slots erased.
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
    return;  // said when there is no other way
  }
}

void Map::unlock(arena::Member& member) {
  const uint64_t slots = std::exchange(wanted_slots_, 0);
  let_go(member);
  if (slots != 0) make_next(member, slots);
}

// Without the lock. Nothing is lost if it fails, or if the map needs another one by then.
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
    return;  // said when there is no other way
  } catch (const arena::CorruptArena&) {
    return free_bag(member, next);  // said by the next change
  }
  if (next != 0) free_bag(member, next);
}

void Map::begin_growth(arena::Member& member, const Table& now, Handle next) noexcept {
  Growth& growth = state().growth;
  set(growth.cleared, 0);
  set(growth.from, get(now.begin));
  set(growth.to, 0);
  set(growth.table, next);
  // COMMIT(map.growth.begin): killed before: the dead's; after: dropped by who takes the lock
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

// The entry's item has become this one (0: erased), in the next table as well.
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
  // Erasing at the end gives positions back: what comes there is not yet in the next table.
  set(growth.from, std::min(get(growth.from), get(table().used)));
}

// The table `larger`, MEMBER(me), with `used` entries, becomes the map's. There is an entry at each
// of its ends: some may have been erased since they were copied.
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

// The table, after another one took its place if its entries are used up, or if so many slots are
// erased that a search for what is not there would be long.
Table& Map::with_room(arena::Member& member) {
  Table& now = table();
  grow_on(member, now);
  const uint64_t used = get(now.used);
  if (used < now.capacity && get(now.erased) * 4 <= now.slots) return now;
  Growth& growth = state().growth;
  const Handle next = get(growth.table);
  if (next != 0) fill_next(now, UINT64_MAX, UINT64_MAX);  // mostly there is nothing left to do
  const uint64_t to = get(growth.to);
  if (next == 0 || get(growth.from) != used || to >= arena_->at<Table>(next)->capacity) {
    drop_growth(member);
    return make_whole_table(member, now);
  }
  // COMMIT(map.growth.end): killed before: dropped by who takes the lock; after: the dead's
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
