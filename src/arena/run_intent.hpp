// SPDX-License-Identifier: Apache-2.0
//
// Changes to the page tables, each written down as an intent in the header before it is carried
// out. All values are absolute, so carrying it out again changes nothing: whoever takes the lock
// over from a dead holder completes its intent. All functions need the RunsLock. They never
// allocate, block or throw.
// Design: docs/design/arena.md
#pragma once

#include "arena/arena.hpp"

namespace shoal::arena {

void allocate_run_locked(Arena& arena, uint64_t first, uint64_t pages, uint64_t owner) noexcept;
void release_run_locked(Arena& arena, uint64_t first, uint64_t pages, uint64_t now_ms) noexcept;
// The run keeps its first `keep` pages; the `extra` after them become free.
void shrink_run_locked(Arena& arena, uint64_t first, uint64_t keep, uint64_t extra,
                       uint64_t now_ms) noexcept;

// Completes what a dead holder of the lock had begun.
void finish_intent(Arena& arena) noexcept;

}  // namespace shoal::arena
