// SPDX-License-Identifier: Apache-2.0
//
// Sequence: items in an order, as a list has them. Appending, replacing and taking from either end
// are constant time (amortised); everything else makes a new table of handles (8 bytes an item), in
// one step. Every function but size() needs the lock; see collections/container.hpp for what a
// death leaves. What throws (MemoryExhausted, CorruptArena) has changed nothing: the items are
// still the caller's. Design: docs/design/collections.md
#pragma once

#include <span>

#include "collections/container.hpp"

namespace shoal::collections {

class Sequence : public Container {
 public:
  static void create(arena::Member& member, Handle handle) {
    Container::create(member, handle, ContainerKind::sequence);
  }
  Sequence(arena::Arena& arena, Handle handle)
      : Container(arena, handle, ContainerKind::sequence) {}
  void unlock(arena::Member& member) { let_go(member); }

  // The item at i < size().
  [[nodiscard]] Handle at(uint64_t i) const;
  // All items, in order; valid until the lock is let go.
  [[nodiscard]] std::span<Table::Item> items() const;

  void append(arena::Member& member, Handle item);
  // The item that was there, MEMBER(me).
  [[nodiscard]] Handle replace(arena::Member& member, uint64_t i, Handle item);
  [[nodiscard]] Handle pop_back(arena::Member& member);
  [[nodiscard]] Handle pop_front(arena::Member& member);

  // [first, last) becomes these items; returns a bag with those that were there.
  [[nodiscard]] Handle splice(arena::Member& member, uint64_t first, uint64_t last,
                              std::span<const Handle> fresh);
  // The items at these places, in this order, are what is left; the others are in the bag that is
  // returned (0: none). Each place at most once.
  [[nodiscard]] Handle rearrange(arena::Member& member, std::span<const uint64_t> places);

 private:
  Table& with_room(arena::Member& member);
};

}  // namespace shoal::collections
