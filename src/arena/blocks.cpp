// SPDX-License-Identifier: Apache-2.0
//
// Member: allocating, freeing and moving blocks. Small blocks come from spans in which only this
// member allocates; any member frees by one write to the owner word. A cache entry is only a hint:
// the block's owner word must read free.
#include <algorithm>

#include "arena/member.hpp"
#include "arena/runs.hpp"
#include "testing/kill_point.hpp"

namespace shoal::arena {

namespace {
// how many spans one refill scans for remotely freed blocks before it takes another span
constexpr size_t kScanSpans = 4;
}  // namespace

// ---- allocate ----

Handle Member::allocate(size_t bytes) {
  if (bytes <= kMaxSmall) return allocate_small(bytes == 0 ? 0 : class_for(bytes));
  require_membership();
  bytes = std::min<size_t>(bytes, arena_->reserve());  // a full reserve fails below, with figures
  RunAllocator runs(*arena_, incarnation_);
  const uint64_t first = runs.allocate((bytes + kPage - 1) >> kPageShift);
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

// Finds free blocks for an empty cache: blocks that others freed in this member's spans, or those
// of an adopted orphan span, or those of a new span.
void Member::refill(uint32_t size_class, std::unique_lock<LocalLock>& local) {
  if (scan_spans(size_class, kScanSpans) > 0) return;
  const Incarnation me = incarnation_;
  local.unlock();
  if (!adopt_orphan(size_class)) {
    RunAllocator runs(*arena_, me);
    add_span(size_class, runs.allocate(kSizeClasses[size_class].span_pages));
  }
  local.lock();
  require_membership();
}

// Needs an empty cache: otherwise blocks could enter it twice.
size_t Member::scan_spans(uint32_t size_class, size_t limit) noexcept {
  Cache& cache = caches_[size_class];
  limit = std::min(limit, cache.spans.size());
  for (size_t i = 0; i < limit && cache.free.empty(); ++i) {
    if (cache.cursor >= cache.spans.size()) cache.cursor = 0;
    collect_span(cache, cache.spans[cache.cursor++]);
  }
  return cache.free.size();
}

// Puts every free block of the span into the cache, the first block on top. The cache has capacity
// for all.
void Member::collect_span(Cache& cache, uint64_t first_page) noexcept {
  const Handle start = arena_->page_handle(first_page);
  const SizeClass& c = class_in(arena_->page(first_page).shape.load());
  os::Atomic<uint64_t>* owners = arena_->at_span(start);
  for (uint32_t i = c.count; i-- > 0;)
    if (owners[i].load(os::relaxed) == owner_free())  // order: relaxed; allocate_small looks again
      cache.free.push_back({start + c.first + uint64_t{i} * c.size, &owners[i]});
}

// Turns a run of this member into a span, or adds an adopted span.
void Member::add_span(uint32_t size_class, uint64_t first_page) {
  const SizeClass& c = kSizeClasses[size_class];
  os::Atomic<uint64_t>& shape = arena_->page(first_page).shape;
  // order: relaxed; only the run's owner, this member, changes the shape of a used run
  if (shape_kind(shape.load(os::relaxed)) != PageKind::span) {
    os::Atomic<uint64_t>* owners = arena_->at_span(arena_->page_handle(first_page));
    for (uint32_t i = 0; i < c.count; ++i)
      owners[i].store(owner_free(), os::relaxed);  // order: relaxed; see below
    // COMMIT(arena.span.make): killed before: a run, freed by the reaper; after: a span, which the
    // reaper frees or orphans.
    // order: release; pairs with acquire in Arena::locate; publishes the owner words
    shape.store(make_shape(PageKind::span, size_class, c.span_pages), os::release);
    SHOAL_KILL_POINT("arena.span.make");
  }
  const std::lock_guard<LocalLock> local(local_);
  Cache& cache = caches_[size_class];
  cache.spans.push_back(first_page);
  cache.free.reserve(cache.spans.size() * c.count);
  cache.trim_at = std::max(cache.trim_at, size_t{2} * c.count);
  collect_span(cache, first_page);
}

bool Member::adopt_orphan(uint32_t size_class) {
  os::Atomic<uint64_t>& hint = arena_->header().orphans[size_class];
  // order: relaxed; a hint, which purge() corrects
  if (hint.load(os::relaxed) == 0) return false;
  const uint64_t frontier = arena_->frontier();
  for (uint64_t page = 0; page < frontier; ++page) {
    PageDescriptor& head = arena_->page(page);
    const uint64_t shape = head.shape.load();
    if (shape_kind(shape) != PageKind::span || shape_class(shape) != size_class) continue;
    uint64_t expected = owner_orphan();
    // COMMIT(arena.span.adopt): killed before: an orphan; after: this member's, orphaned by its
    // reaper
    if (!head.owner.compare_exchange(expected, owner_member(incarnation_))) continue;
    SHOAL_KILL_POINT("arena.span.adopt");
    if (hint.fetch_sub(1) == 0) hint.store(0);
    add_span(static_cast<uint32_t>(shape_class(head.shape.load()) % kClasses), page);
    return true;
  }
  hint.store(0);
  return false;
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
  // COMMIT(arena.free.run): killed before: unchanged; after: dying, released by the reaper
  if (!arena_->page(at.first).owner.compare_exchange(expected, owner_dying(incarnation_)))
    return false;
  SHOAL_KILL_POINT("arena.free.run");
  RunAllocator(*arena_, incarnation_).release(at.first, shape_pages(at.shape));
  purge_if_due();
  return true;
}

bool Member::free_small(Handle b, Arena::Located at, uint64_t expected) noexcept {
  os::Atomic<uint64_t>& owner = arena_->owner_at(at, b);
  // Read the span's owner while the caller still owns the block: afterwards the span may be freed.
  // order: relaxed; if it names this member, only this member changes it
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

void Member::trim(uint32_t size_class, size_t keep) noexcept {
  while (trim_some(size_class, keep) > 0) continue;
}

// Releases spans of this class in which every block is free, except `keep` of them; returns how
// many it released.
size_t Member::trim_some(uint32_t size_class, size_t keep) noexcept {
  const SizeClass& c = kSizeClasses[size_class];
  uint64_t released[64];
  size_t count = 0;
  {
    const std::lock_guard<LocalLock> local(local_);
    Cache& cache = caches_[size_class];
    size_t kept_free = 0;
    const auto goes = [&](uint64_t page) {
      if (count == std::size(released) || !span_is_free(page)) return false;
      if (kept_free++ < keep) return false;
      released[count++] = page;
      return true;
    };
    cache.spans.erase(std::remove_if(cache.spans.begin(), cache.spans.end(), goes),
                      cache.spans.end());
    std::sort(released, released + count);
    const auto in_released = [&](const FreeBlock& f) {
      return std::binary_search(released, released + count,
                                arena_->page_of(arena_->span_of(f.block)));
    };
    if (count > 0)
      cache.free.erase(std::remove_if(cache.free.begin(), cache.free.end(), in_released),
                       cache.free.end());
    cache.cursor = 0;
    cache.trim_at =
        std::max(size_t{2} * c.count, cache.free.size() + cache.spans.size() * c.count / 4);
  }
  RunAllocator runs(*arena_, incarnation_);
  for (size_t i = 0; i < count; ++i) runs.release(released[i], c.span_pages);
  return count;
}

bool Member::span_is_free(uint64_t first_page) const noexcept {
  const Handle start = arena_->page_handle(first_page);
  const uint64_t shape = arena_->page(first_page).shape.load();
  const uint32_t count = class_in(shape).count;
  const os::Atomic<uint64_t>* owners = arena_->at_span(start);
  for (uint32_t i = 0; i < count; ++i)
    // order: acquire; pairs with the release in free_small; the last user of the block has finished
    if (owners[i].load(os::acquire) != owner_free()) return false;
  return true;
}

// ---- moves: one compare-exchange each ----

void Member::give_to_block(Handle b, Handle parent) noexcept {
  uint64_t expected = owner_member(incarnation_);
  // COMMIT(arena.move.give_block): killed before: this member's; after: freed with its parent
  arena_->owner_word(b).compare_exchange(expected, owner_block(parent));
  SHOAL_KILL_POINT("arena.move.give_block");
}

bool Member::take_from_block(Handle b, Handle parent) noexcept {
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
  uint64_t expected = owner_channel(channel, position);
  // COMMIT(arena.move.take_channel): killed before: the channel's; after: this member's
  const bool done = arena_->owner_word(b).compare_exchange(expected, owner_member(incarnation_));
  SHOAL_KILL_POINT("arena.move.take_channel");
  return done;
}

}  // namespace shoal::arena
