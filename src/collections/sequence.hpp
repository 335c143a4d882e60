// SPDX-License-Identifier: Apache-2.0
//
// Sequence: items in an order, like a list. Appending, replacing and taking from either end are
// constant time (amortised); every other change makes a new table of handles (8 bytes an item), as
// one change. Every function but size() needs the lock; see collections/container.hpp for what a
// death leaves. A function that throws (MemoryExhausted, CorruptArena) has changed nothing: the
// items are still the caller's. Design: docs/design/collections.md
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
  // All items, in order; valid until the lock is released.
  [[nodiscard]] std::span<Table::Item> items() const;

  void append(arena::Member& member, Handle item);
  // Returns the replaced item, MEMBER(me).
  [[nodiscard]] Handle replace(arena::Member& member, uint64_t i, Handle item);
  [[nodiscard]] Handle pop_back(arena::Member& member);
  [[nodiscard]] Handle pop_front(arena::Member& member);

  // Replaces the items [first, last) by these; returns a bag with the replaced ones.
  [[nodiscard]] Handle splice(arena::Member& member, uint64_t first, uint64_t last,
                              std::span<const Handle> fresh);
  // Keeps the items at these places, in this order; returns a bag with the others (0: none). Each
  // place at most once.
  [[nodiscard]] Handle rearrange(arena::Member& member, std::span<const uint64_t> places);

 private:
  Table& with_room(arena::Member& member);
};

}  // namespace shoal::collections
