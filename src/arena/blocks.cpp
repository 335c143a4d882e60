// SPDX-License-Identifier: Apache-2.0
//
// Member: allocating, freeing and moving blocks. Small blocks come from spans in which only this
// member allocates; any member frees by one write to the owner word. A cache entry is only a hint:
// the block's owner word must read free.
#include <algorithm>

#include "arena/kept_runs.hpp"
#include "arena/kin.hpp"
#include "arena/member.hpp"
#include "arena/reap.hpp"
#include "arena/runs.hpp"
#include "testing/kill_point.hpp"

namespace shoal::arena {

// ---- allocate ----

Handle Member::allocate(size_t bytes) {
  try {
    return allocate_from_free(bytes);
  } catch (const MemoryExhausted&) {
    if (reap_for_memory(*arena_, *this) == 0) throw;
  }
  return allocate_from_free(bytes);
}

Handle Member::allocate_from_free(size_t bytes) {
  if (bytes <= kMaxSmall) return allocate_small(bytes == 0 ? 0 : class_for(bytes));
  require_membership();
  bytes = std::min<size_t>(bytes, arena_->reserve());  // a full reserve fails below, with figures
  const uint64_t pages = (bytes + kPage - 1) >> kPageShift;
  if (const Handle kept = take_kept(pages); kept != 0) return kept;
  RunAllocator runs(*arena_, incarnation_);
  const uint64_t first = runs.allocate(pages);
  purge_if_due();
  return arena_->page_handle(first);
}

Handle Member::allocate_small(uint32_t size_class) {
  std::unique_lock<LocalLock> local(local_);
  require_membership();
  std::vector<FreeBlock>& cached = caches_[size_class].free;
  while (true) {
    while (!cached.empty()) {
      const auto [b, owner] = cached.back();
      cached.pop_back();
      // order: acquire; pairs with the release in free_small; the last user's accesses precede ours
      if (owner->load(os::acquire) != owner_free()) continue;
      // COMMIT(arena.alloc.small): killed before: free; after: this member's, freed by the reaper
      // order: relaxed; only this member allocates blocks of this span, under local_
      owner->store(owner_member(incarnation_), os::relaxed);
      SHOAL_KILL_POINT("arena.alloc.small");
      return b;
    }
    refill(size_class, local);
  }
}

// ---- free ----

void Member::free(Handle b) noexcept { free_owned(b, owner_member(incarnation_)); }

bool Member::free_child(Handle b, Handle parent) noexcept {
  return free_owned(b, owner_block(parent));
}

bool Member::free_owned(Handle b, uint64_t expected) noexcept {
  if (incarnation_ == 0) return false;
  const Arena::Located at = arena_->locate(b);
  // order: relaxed; the caller owns the block, or the compare-exchange that follows decides
  if (arena_->owner_at(at, b).load(os::relaxed) != expected) return false;
  return shape_kind(at.shape) == PageKind::run ? free_run(at, expected)
                                               : free_small(b, at, expected);
}

bool Member::free_run(Arena::Located at, uint64_t expected) noexcept {
  mark(arena_->page_handle(at.first));
  // COMMIT(arena.free.run): killed before: unchanged; after: dying, released by the reaper
  if (!arena_->page(at.first).owner.compare_exchange(expected, owner_dying(incarnation_)))
    return false;
  SHOAL_KILL_POINT("arena.free.run");
  if (!keep(at.first, shape_pages(at.shape)))
    RunAllocator(*arena_, incarnation_).release(at.first, shape_pages(at.shape));
  purge_if_due();
  return true;
}

// ---- kept runs

// A kept run of this length, as MEMBER(me); 0: none.
Handle Member::take_kept(uint64_t pages) noexcept {
  if (pages > kLongestKept) return 0;
  const std::lock_guard<LocalLock> local(local_);
  for (;;) {
    KeptRuns::Run run = kept_.pop(pages);
    if (run.word == 0) return 0;
    // COMMIT(arena.keep.take): killed before: kept by this member, whose reaper releases it; after:
    // this member's, and the reaper frees it
    const bool mine =
        arena_->page(run.page).owner.compare_exchange(run.word, owner_member(incarnation_));
    SHOAL_KILL_POINT("arena.keep.take");
    if (mine) return arena_->page_handle(run.page);
  }
}

// Keeps a run that is DYING(me); false: the caller releases it.
bool Member::keep(uint64_t first, uint64_t pages) noexcept {
  if (pages > kLongestKept) return false;
  const uint64_t most = most_kept_pages(*arena_);
  const std::lock_guard<LocalLock> local(local_);
  if (!kept_.has_room(pages, most)) {
    kept_.forget_lost(*arena_);
    if (!kept_.has_room(pages, most)) return false;
  }
  clear_kin(*arena_, first);
  list_kept(*arena_, first);
  const uint64_t word = owner_kept(incarnation_, pages, now_ms() / 1000);
  // COMMIT(arena.keep.run): killed before: DYING(me), released by the reaper; after: kept, and
  // released by the reaper as well
  arena_->page(first).owner.store(word);
  SHOAL_KILL_POINT("arena.keep.run");
  kept_.push(pages, {first, word});
  return true;
}

bool Member::free_small(Handle b, Arena::Located at, uint64_t expected) noexcept {
  os::Atomic<uint64_t>& owner = arena_->owner_at(at, b);
  // Read the span's owner while the caller still owns the block: afterwards the span may be freed.
  // MEMBER(me) stays the owner until the block is free (arena/orphans.hpp, 1), so any thread of
  // this process may use the cache. A span that a thread of this process has claimed, to adopt or
  // to release it, is DYING(me): its blocks are freed as in the span of any other member.
  // order: relaxed; if the owner is this member, only this member changes it
  if (arena_->page(at.first).owner.load(os::relaxed) != owner_member(incarnation_)) {
    // COMMIT(arena.free.remote): killed before: unchanged; after: free, found by the span's member
    // order: acq_rel; pairs with acquire in allocate_small; our uses of the block precede its reuse
    const bool done = owner.compare_exchange(expected, owner_free(), os::acq_rel);
    SHOAL_KILL_POINT("arena.free.remote");
    return done;
  }
  const auto size_class = static_cast<uint32_t>(shape_class(at.shape));
  Cache& cache = caches_[size_class];
  std::unique_lock<LocalLock> local(local_);
  // order: relaxed; this process owns the block, or its parent, so only threads of this process
  // free it, under local_
  if (owner.load(os::relaxed) != expected) return false;
  // COMMIT(arena.free.small): killed before: unchanged; after: free
  // order: release; pairs with acquire in span_is_free; our uses of the block precede its reuse
  owner.store(owner_free(), os::release);
  SHOAL_KILL_POINT("arena.free.small");
  if (cache.free.size() < cache.free.capacity())
    cache.free.push_back({b, &owner});  // else: the next scan finds it
  if (cache.free.size() <= cache.trim_at) return true;
  local.unlock();
  trim(size_class, 1);
  return true;
}

// ---- moves: one compare-exchange each ----

void Member::give_to_block(Handle b, Handle parent) noexcept {
  make_kin(*arena_, b, parent);
  uint64_t expected = owner_member(incarnation_);
  // COMMIT(arena.move.give_block): killed before: this member's; after: freed with its parent
  arena_->owner_word(b).compare_exchange(expected, owner_block(parent));
  SHOAL_KILL_POINT("arena.move.give_block");
}

bool Member::take_from_block(Handle b, Handle parent) noexcept {
  mark(b);
  uint64_t expected = owner_block(parent);
  // COMMIT(arena.move.take_block): killed before: the parent's; after: this member's
  const bool done = arena_->owner_word(b).compare_exchange(expected, owner_member(incarnation_));
  SHOAL_KILL_POINT("arena.move.take_block");
  return done;
}

bool Member::give_to_channel(Handle b, uint32_t channel, uint64_t position) noexcept {
  uint64_t expected = owner_member(incarnation_);
  // COMMIT(arena.move.give_channel): killed before: this member's; after: the channel's, and the
  // lane's intent tells whether it was sent.
  const bool done =
      arena_->owner_word(b).compare_exchange(expected, owner_channel(channel, position));
  SHOAL_KILL_POINT("arena.move.give_channel");
  return done;
}

bool Member::take_from_channel(Handle b, uint32_t channel, uint64_t position) noexcept {
  mark(b);
  uint64_t expected = owner_channel(channel, position);
  // COMMIT(arena.move.take_channel): killed before: the channel's; after: this member's
  const bool done = arena_->owner_word(b).compare_exchange(expected, owner_member(incarnation_));
  SHOAL_KILL_POINT("arena.move.take_channel");
  return done;
}

}  // namespace shoal::arena
