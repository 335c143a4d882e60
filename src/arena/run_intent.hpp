// SPDX-License-Identifier: Apache-2.0
//
// Changes to the page tables. Each is written to the header as an intent before it is carried out.
// All values are absolute, so carrying an intent out again changes nothing: a member that takes the
// lock over from a dead holder completes the holder's intent. All functions need the RunsLock. They
// never allocate memory, block or throw.
// Design: docs/design/arena.md
#pragma once

#include "arena/arena.hpp"

namespace shoal::arena {

void allocate_run_locked(Arena& arena, uint64_t first, uint64_t pages, uint64_t owner) noexcept;
void release_run_locked(Arena& arena, uint64_t first, uint64_t pages, uint64_t now_ms) noexcept;
// The run keeps its first `keep` pages; the `extra` after them become free.
void shrink_run_locked(Arena& arena, uint64_t first, uint64_t keep, uint64_t extra,
                       uint64_t now_ms) noexcept;

// Carries out the intent in the header and clears it; after a takeover, that of the dead holder.
void finish_intent(Arena& arena) noexcept;

}  // namespace shoal::arena
