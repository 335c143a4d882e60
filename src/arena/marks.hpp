// SPDX-License-Identifier: Apache-2.0
//
// Marks: for each member the pages in which it may own or hold a block, so that its reaper visits
// these pages and no others. One bit a page in memory of the member's slot (MarksLayout), and one
// bit a chunk that says whether the chunk has memory behind it.
//
// 1. A member marks the page in which a block starts before the store that makes it the block's
//    owner or one of its holders, and all pages of a span before it becomes the span's member, so
//    that allocating in it needs no mark.
//    The page of the block's start does not depend on the run or span that the block is part of, so
//    the mark is right even if that changes between the mark and the store.
// 2. Marks are set by the member. For a slot that is prepared for a fork's child they are set by
//    the forking member, before it makes the child a holder. They are cleared only by the reaper,
//    when nothing of the dead member is left; then the slot becomes free. So a free slot has no
//    marks.
// 3. A reaper marks too: a block that it claims becomes DYING(reaper), and a hook of an upper layer
//    that gives a block to the dead member marks it for the dead member: give_to_dead().
// 4. Memory is reserved behind a chunk, then the chunk's bit is set, then bits in the chunk. If
//    there is no memory, `marks_everything` is set instead, and the reaper visits all pages.
// 5. A mark may name a page in which the member owns nothing any more. That costs the reaper a look
//    at the page. A member clears no marks, since another of its threads may be about to rely on
//    them.
//
// The chunks of a slot keep their memory for the slot's next member.
// Member::mark() and mark_for() in member.hpp set marks; any thread may call them. Nothing here
// blocks or throws; a mark may make one system call.
// Design: docs/design/arena.md
#pragma once

#include "arena/arena.hpp"

namespace shoal::arena {

// The marks of one slot, for its reaper and for checks.
class Marks {
 public:
  Marks(const Arena& arena, uint32_t slot) noexcept : arena_(arena), slot_(slot) {}

  bool everything() const noexcept;  // all pages count as marked
  // The first marked page at or after `from`; kNoPage: none. If everything() is marked: the first
  // such page that is part of a run or span, for callers that hold the RunsLock.
  uint64_t next(uint64_t from) const noexcept;
  bool any() const noexcept { return everything() || next_marked(0) != UINT64_MAX; }
  void clear() noexcept;

 private:
  uint64_t next_chunk(uint64_t from) const noexcept;
  uint64_t next_marked(uint64_t from) const noexcept;
  uint64_t next_used(uint64_t from) const noexcept;

  const Arena& arena_;
  const uint32_t slot_;
};

}  // namespace shoal::arena
