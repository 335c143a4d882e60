// SPDX-License-Identifier: Apache-2.0
//
// Who allocates in a span: the owner word in the descriptor of the span's first page.
//
//   owner      meaning, and who may change it                           next
//   MEMBER(m)  m allocates here. m under its local_, if all blocks are  DYING(m)
//              free; the reaper of m                                    ORPHAN, or released
//   ORPHAN     nobody allocates here. Any member, by compare-exchange   DYING(m)
//   DYING(m)   nobody allocates here; one thread of m has claimed the   MEMBER(m), ORPHAN, or
//              span, to adopt it or to release it. That thread; the     released
//              reaper of m                                              ORPHAN, or released
//
// 1. The owner is MEMBER(m) exactly while the span is in m's private list of spans. Both change in
//    one hold of m's local_. So a thread of m that owns a block in the span and reads MEMBER(m) may
//    use m's cache: the span stays m's at least until that block is free.
// 2. While the owner is ORPHAN or DYING, blocks only become free, by the compare-exchange of a
//    remote free. So a claimed span in which every block is free stays so.
// 3. If the owner is ORPHAN, the page's bit in the orphan bitmap is set. The bit is set before the
//    word becomes ORPHAN, and cleared only by who holds the claim or reaps its holder. A set bit
//    whose span is no orphan belongs to a claim, or to a death that has not been reaped yet.
// 4. Spans become orphans only in reaps, and death_epoch is incremented at the end of each: a
//    member that has searched the bitmap in vain need not search again in the same epoch. The one
//    exception is a claim that was given up, which other members may miss until the next epoch.
// 5. A span is released, and becomes an orphan in a reap, only under the RunsLock. So whoever holds
//    that lock may read the owner words of any span.
//
// All functions are callable in any member. They never allocate, block or throw.
// Design: docs/design/arena.md
#pragma once

#include "arena/arena.hpp"

namespace shoal::arena {

// The first page at or after `from` whose bit is set; kNoPage: none.
uint64_t next_orphan_bit(const Arena& arena, uint64_t from) noexcept;

// ORPHAN -> DYING(me). False: the page is no orphan span.
bool claim_orphan(Arena& arena, Incarnation me, uint64_t page) noexcept;
// For the holder of a claim, before the span gets another owner or is released.
void clear_orphan_bit(Arena& arena, uint64_t page) noexcept;
// MEMBER(dead) or DYING(dead) -> ORPHAN; for the reaper, with the RunsLock.
void make_orphan(Arena& arena, uint64_t page) noexcept;
// DYING(me) -> ORPHAN, for the holder of a claim that has not cleared the bit.
void give_up_claim(Arena& arena, Incarnation me, uint64_t page) noexcept;

// Is every block of the span free? For the span's member, under its local_; for the holder of a
// claim; for any member under the RunsLock, to whom a span without a claim may change at any time.
bool span_is_free(const Arena& arena, uint64_t page) noexcept;

}  // namespace shoal::arena
