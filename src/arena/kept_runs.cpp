// SPDX-License-Identifier: Apache-2.0
#include "arena/kept_runs.hpp"

#include <algorithm>

#include "arena/kin.hpp"
#include "arena/lock.hpp"
#include "arena/member.hpp"
#include "arena/page_search.hpp"
#include "arena/run_intent.hpp"
#include "arena/runs.hpp"
#include "arena/slots.hpp"
#include "testing/kill_point.hpp"

namespace shoal::arena {

namespace {

constexpr uint64_t kShareOfLimit = 8;

uint64_t next_kept_bit(const Arena& arena, uint64_t from) noexcept {
  return next_set_bit(arena.kept_bits(), from, arena.frontier());
}

}  // namespace

// ---- what one member remembers

KeptRuns::Run KeptRuns::pop(uint64_t pages) noexcept {
  Length& length = lengths_[pages];
  length.wanted = std::min(length.wanted + 1, kMostOfALength);
  if (length.count == 0) return {};
  pages_ -= pages;
  return length.runs[--length.count];
}

bool KeptRuns::has_room(uint64_t pages, uint64_t most_pages) const noexcept {
  const Length& length = lengths_[pages];
  return length.wanted > 0 && length.count < kMostOfALength && pages_ + pages <= most_pages;
}

void KeptRuns::push(uint64_t pages, Run run) noexcept {
  Length& length = lengths_[pages];
  length.runs[length.count++] = run;
  --length.wanted;
  pages_ += pages;
}

void KeptRuns::forget_lost(const Arena& arena) noexcept {
  for (uint64_t pages = 1; pages <= kLongestKept; ++pages) {
    Length& length = lengths_[pages];
    uint32_t left = 0;
    for (uint32_t i = 0; i < length.count; ++i)
      if (arena.page(length.runs[i].page).owner.load() == length.runs[i].word)
        length.runs[left++] = length.runs[i];
    pages_ -= pages * (length.count - left);
    length.count = left;
  }
}

// ---- what all members see

uint64_t most_kept_pages(const Arena& arena) noexcept {
  const uint64_t limit = arena.header().limit;
  if (limit == 0) return kMostKeptPages;
  return std::min(kMostKeptPages, limit / kPage / kShareOfLimit / slots_in_use(arena));
}

void list_kept(Arena& arena, uint64_t page) noexcept {
  os::Atomic<uint64_t>& word = arena.kept_bits()[page / 64];
  if ((word.load() & bit_of(page)) != 0) return;
  // COMMIT(arena.keep.list): killed before or after: DYING(me), which the reaper releases
  word.fetch_or(bit_of(page));
  SHOAL_KILL_POINT("arena.keep.list");
}

void unlist_kept(Arena& arena, uint64_t page) noexcept {
  os::Atomic<uint64_t>& word = arena.kept_bits()[page / 64];
  // order: relaxed; the run has no owner, so no other member changes its bit
  if ((word.load(os::relaxed) & bit_of(page)) != 0) word.fetch_and(~bit_of(page));
}

uint64_t release_kept(Arena& arena, Incarnation me, uint64_t older_than_ms) noexcept {
  uint64_t released = 0;
  for (uint64_t page = next_kept_bit(arena, 0); page != kNoPage;
       page = next_kept_bit(arena, page + 1)) {
    const uint64_t now = now_ms();
    os::Atomic<uint64_t>& owner = arena.page(page).owner;
    uint64_t word = owner.load();
    if (!is_kept(word) || kept_for(word, now / 1000) * 1000 < older_than_ms) continue;
    mark_for(arena, me, arena.page_handle(page));
    // COMMIT(arena.keep.release): killed before: still kept; after: released by the reaper
    const bool mine = owner.compare_exchange(word, owner_dying(me));
    SHOAL_KILL_POINT("arena.keep.release");
    if (!mine) continue;
    const RunsLock lock(arena, me);
    // as if it had been released when it was kept, for the decay of its memory
    release_run_locked(arena, page, kept_pages(word), now - kept_for(word, now / 1000) * 1000);
    released += kept_pages(word);
  }
  return released;
}

}  // namespace shoal::arena
