// SPDX-License-Identifier: Apache-2.0
#include "collections/sequence.hpp"

#include <stdexcept>
#include <string>
#include <vector>

namespace shoal::collections {

namespace {

struct Range {
  uint64_t begin;
  uint64_t used;
  [[nodiscard]] uint64_t size() const noexcept { return used - begin; }
};

Range range_of(const Table& table) {
  const Range range{get(table.begin), get(table.used)};
  if (range.begin > range.used || range.used > table.capacity) {
    throw arena::CorruptArena("a sequence claims more items than its table can hold");
  }
  return range;
}

void check_place(uint64_t i, uint64_t size) {
  if (i < size) return;
  throw std::out_of_range("no item " + std::to_string(i) + " in a sequence of " +
                          std::to_string(size));
}

// Room for half as many again: appending n items one by one moves each about twice.
uint64_t capacity_for(uint64_t items) noexcept { return items + items / 2 + 8; }

}  // namespace

Handle Sequence::at(uint64_t i) const {
  Table& now = table();
  const Range range = range_of(now);
  check_place(i, range.size());
  return get(now.items()[range.begin + i]);
}

std::span<Table::Item> Sequence::items() const {
  Table& now = table();
  const Range range = range_of(now);
  return {now.items() + range.begin, range.size()};
}

// The table with room for one more item at its end; a new table if the present one has none.
Table& Sequence::with_room(arena::Member& member) {
  Table& now = table();
  const Range range = range_of(now);
  if (range.used < now.capacity) return now;
  const Handle larger = make_table(member, handle(), capacity_for(range.size()));
  Table& made = *arena_->at<Table>(larger);
  for (uint64_t i = 0; i < range.size(); ++i) {
    set(made.items()[i], get(now.items()[range.begin + i]));
  }
  const Handle old = state().table.load();
  prepare_table(member, larger);
  commit(member, Swap{larger, 0, range.size(), range.size(), 0, 0, 0, 0, false});
  free_bag(member, old);
  return made;
}

void Sequence::append(arena::Member& member, Handle item) {
  Table& now = with_room(member);
  const Range range = range_of(now);
  prepare(member, item);
  commit(member, Put{range.used, item, 0, range.begin, range.used + 1, range.size() + 1, true});
}

Handle Sequence::replace(arena::Member& member, uint64_t i, Handle item) {
  Table& now = table();
  const Range range = range_of(now);
  check_place(i, range.size());
  const uint64_t position = range.begin + i;
  const Handle old = get(now.items()[position]);
  prepare(member, item);
  commit(member, Put{position, item, old, range.begin, range.used, range.size(), false});
  return old;
}

Handle Sequence::pop_back(arena::Member& member) {
  Table& now = table();
  const Range range = range_of(now);
  check_place(0, range.size());
  const Handle old = get(now.items()[range.used - 1]);
  commit(member, Put{range.used - 1, 0, old, range.begin, range.used - 1, range.size() - 1, true});
  return old;
}

Handle Sequence::pop_front(arena::Member& member) {
  Table& now = table();
  const Range range = range_of(now);
  check_place(0, range.size());
  const Handle old = get(now.items()[range.begin]);
  commit(member, Put{range.begin, 0, old, range.begin + 1, range.used, range.size() - 1, true});
  return old;
}

Handle Sequence::splice(arena::Member& member, uint64_t first, uint64_t last,
                        std::span<const Handle> fresh) {
  Table& now = table();
  const Range range = range_of(now);
  if (first > last || last > range.size()) check_place(last, range.size());
  const uint64_t size = range.size() - (last - first) + fresh.size();
  const Handle made = make_table(member, handle(), capacity_for(size));
  Table& next = *arena_->at<Table>(made);
  uint64_t to = 0;
  for (uint64_t i = 0; i < first; ++i) set(next.items()[to++], get(now.items()[range.begin + i]));
  next.fresh_begin = to;
  for (const Handle item : fresh) set(next.items()[to++], item);
  next.fresh_end = to;
  for (uint64_t i = range.begin + last; i < range.used; ++i) {
    set(next.items()[to++], get(now.items()[i]));
  }
  const Handle old = state().table.load();
  prepare_table(member, made);
  commit(member, Swap{made, 0, size, size, range.begin + first, range.begin + last});
  return old;
}

Handle Sequence::rearrange(arena::Member& member, std::span<const uint64_t> places) {
  Table& now = table();
  const Range range = range_of(now);
  std::vector<bool> stays(range.size());
  for (const uint64_t place : places) {
    check_place(place, range.size());
    if (stays[place]) throw std::invalid_argument("an item can be at one place only");
    stays[place] = true;
  }
  const uint64_t gone = range.size() - places.size();
  const Handle bag = gone == 0 ? 0 : make_table(member, handle(), gone);
  Handle made = 0;
  try {
    made = make_table(member, handle(), capacity_for(places.size()));
  } catch (const std::exception&) {
    if (bag != 0) free_bag(member, bag);
    throw;
  }
  Table& next = *arena_->at<Table>(made);
  for (uint64_t i = 0; i < places.size(); ++i) {
    set(next.items()[i], get(now.items()[range.begin + places[i]]));
  }
  if (bag != 0) {
    Table& rest = *arena_->at<Table>(bag);
    for (uint64_t i = 0, to = 0; i < range.size(); ++i) {
      if (!stays[i]) set(rest.items()[to++], get(now.items()[range.begin + i]));
    }
  }
  const Handle old = state().table.load();
  prepare_table(member, made);
  if (bag != 0) prepare_bag(member, bag);
  commit(member, Swap{made, 0, places.size(), places.size(), 0, 0, bag, gone});
  free_bag(member, old);
  return bag;
}

}  // namespace shoal::collections
