// SPDX-License-Identifier: Apache-2.0
#include "arena/orphans.hpp"

#include "arena/page_search.hpp"
#include "testing/kill_point.hpp"

namespace shoal::arena {

uint64_t next_orphan_bit(const Arena& arena, uint64_t from) noexcept {
  return next_set_bit(arena.orphan_bits(), from, arena.frontier());
}

bool claim_orphan(Arena& arena, Incarnation me, uint64_t page) noexcept {
  PageDescriptor& head = arena.page(page);
  uint64_t expected = owner_orphan();
  if (head.owner.load() != expected) return false;
  mark_for(arena, me, arena.page_handle(page));
  // COMMIT(arena.span.claim): killed before: an orphan; after: DYING(me), which this member's
  // reaper releases or makes an orphan again
  const bool done = head.owner.compare_exchange(expected, owner_dying(me));
  SHOAL_KILL_POINT("arena.span.claim");
  return done;
}

void clear_orphan_bit(Arena& arena, uint64_t page) noexcept {
  // COMMIT(arena.span.unlist): killed before: as before; after: a claim without its bit, which the
  // reaper sets again if the span becomes an orphan
  arena.orphan_bits()[page / 64].fetch_and(~bit_of(page));
  SHOAL_KILL_POINT("arena.span.unlist");
}

void make_orphan(Arena& arena, uint64_t page) noexcept {
  // COMMIT(arena.reap.list): killed before: the dead member's; after: the same, and searches look
  // at a span that is no orphan yet
  arena.orphan_bits()[page / 64].fetch_or(bit_of(page));
  SHOAL_KILL_POINT("arena.reap.list");
  // COMMIT(arena.reap.orphan): killed before: the next reaper finds it; after: an orphan
  arena.page(page).owner.store(owner_orphan());
  SHOAL_KILL_POINT("arena.reap.orphan");
}

// Killed before the exchange: the reaper makes it an orphan.
void give_up_claim(Arena& arena, Incarnation me, uint64_t page) noexcept {
  uint64_t expected = owner_dying(me);
  arena.page(page).owner.compare_exchange(expected, owner_orphan());
}

bool span_is_free(const Arena& arena, uint64_t page) noexcept {
  const uint32_t count = class_in(arena.page(page).shape.load()).count;
  const os::Atomic<uint64_t>* owners = arena.at_span(arena.page_handle(page));
  for (uint32_t i = 0; i < count; ++i)
    // order: acquire; pairs with the release in free_small; the last user of the block has finished
    if (owners[i].load(os::acquire) != owner_free()) return false;
  return true;
}

}  // namespace shoal::arena
