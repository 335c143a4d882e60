// SPDX-License-Identifier: Apache-2.0
//
// Which member allocates in a span: the owner word in the descriptor of the span's first page.
//
//   owner      meaning                     changed by                         to
//   MEMBER(m)  m allocates here            m under its local_, if all blocks  DYING(m)
//                                          are free
//                                          the reaper of m                    ORPHAN, released
//   ORPHAN     no member allocates here    any member, by compare-exchange    DYING(m)
//   DYING(m)   no member allocates here;   the thread that has the claim      MEMBER(m), ORPHAN,
//              a thread of m has claimed                                      released
//              it, to adopt or release it  the reaper of m                    ORPHAN, released
//
// 1. The owner is MEMBER(m) exactly while the span is in m's private list of spans. Both change in
//    one critical section of m's local_. So a thread of m that owns a block in the span and reads
//    MEMBER(m) may use m's cache: the span belongs to m at least until that block is free.
// 2. While the owner is ORPHAN or DYING, no block is allocated; blocks only become free, by the
//    compare-exchange of a remote free. So once every block of a claimed span is free, all stay
//    free.
// 3. If the owner is ORPHAN, the page's bit in the orphan bitmap is set. The bit is set before the
//    word becomes ORPHAN. Only the holder of the claim, or the reaper of that holder, clears it. If
//    a bit is set and the span is not ORPHAN, a member has claimed the span, or a dead member that
//    owned it has not been reaped completely.
// 4. Spans become orphans only in reaps, and death_epoch is incremented at the end of each: a
//    member that has searched the bitmap and found nothing need not search again in the same epoch.
//    There is one exception: a span that give_up_claim() has made ORPHAN again may be missed by
//    other members until the next epoch.
// 5. A span is released, or becomes an orphan in a reap, only under the RunsLock. So a thread that
//    holds that lock may read the owner words of any span.
//
// All functions are callable in any member. They never block or throw.
// Design: docs/design/arena.md
#pragma once

#include "arena/arena.hpp"

namespace shoal::arena {

// The first page at or after `from` whose bit is set; kNoPage: none.
uint64_t next_orphan_bit(const Arena& arena, uint64_t from) noexcept;

// ORPHAN -> DYING(me). False: the page is no orphan span.
bool claim_orphan(Arena& arena, Incarnation me, uint64_t page) noexcept;
// Called by the holder of a claim, before the span gets another owner or is released.
void clear_orphan_bit(Arena& arena, uint64_t page) noexcept;
// MEMBER(dead) or DYING(dead) -> ORPHAN. Called by the reaper, which holds the RunsLock.
void make_orphan(Arena& arena, uint64_t page) noexcept;
// DYING(me) -> ORPHAN. Called by the holder of a claim that has not cleared the bit.
void give_up_claim(Arena& arena, Incarnation me, uint64_t page) noexcept;

// Is every block of the span free? Callers: the span's member, under its local_; the holder of a
// claim; any member under the RunsLock, but unless it has claimed the span, the answer may be
// outdated when the call returns.
bool span_is_free(const Arena& arena, uint64_t page) noexcept;

}  // namespace shoal::arena
