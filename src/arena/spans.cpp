// SPDX-License-Identifier: Apache-2.0
//
// Member: the spans in which this member allocates. The member makes spans, adopts spans of members
// that are gone, collects the blocks that other members have freed, and releases spans in which no
// block is used. arena/orphans.hpp has the states of a span's owner word.
#include <algorithm>

#include "arena/lock.hpp"
#include "arena/member.hpp"
#include "arena/orphans.hpp"
#include "arena/page_search.hpp"
#include "arena/run_intent.hpp"
#include "arena/runs.hpp"
#include "testing/kill_point.hpp"

namespace shoal::arena {

namespace {
// how many spans one refill scans for remotely freed blocks before it takes another span
constexpr size_t kScanSpans = 4;
// owner words that a sweep reads each time it holds the lock
constexpr uint64_t kBatchWords = 1024;
}  // namespace

// Finds free blocks for an empty cache: blocks that other members freed in this member's spans, or
// the free blocks of an adopted orphan span, or the blocks of a new span.
void Member::refill(uint32_t size_class, std::unique_lock<LocalLock>& local) {
  if (scan_spans(size_class, kScanSpans) > 0) return;
  const Incarnation me = incarnation_;
  OrphanSearch search = begin_search(caches_[size_class].search);
  local.unlock();
  const uint64_t orphan = find_orphan(size_class, &search);
  if (orphan != kNoPage) {
    adopt_span(orphan);
  } else {
    RunAllocator runs(*arena_, me);
    make_span(size_class, runs.allocate(kSizeClasses[size_class].span_pages));
  }
  local.lock();
  require_membership();
  OrphanSearch& last = caches_[size_class].search;
  if (last.epoch == search.epoch) last.from = std::max(last.from, search.from);
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

// Takes local_, with room in the cache for one more span and all its blocks. The larger vectors are
// allocated, and the old ones are freed, without local_, since both may make system calls. So
// `room` must outlive the lock.
std::unique_lock<LocalLock> Member::lock_with_room(uint32_t size_class, Room* room) {
  Cache& cache = caches_[size_class];
  const size_t count = kSizeClasses[size_class].count;
  std::unique_lock<LocalLock> local(local_);
  for (;;) {
    const size_t needed = cache.spans.size() + 1;
    if (cache.spans.capacity() >= needed && cache.free.capacity() >= needed * count) return local;
    if (room->spans.capacity() >= needed && room->free.capacity() >= needed * count) {
      room->spans.assign(cache.spans.begin(), cache.spans.end());
      room->free.assign(cache.free.begin(), cache.free.end());
      room->spans.swap(cache.spans);
      room->free.swap(cache.free);
      return local;
    }
    local.unlock();
    room->spans.reserve(needed + needed / 4);
    room->free.reserve((needed + needed / 4) * count);
    local.lock();
  }
}

// Adds a span to the cache. Needs: lock_with_room(); the span's owner is MEMBER(me).
void Member::add_span(uint32_t size_class, uint64_t first_page) noexcept {
  Cache& cache = caches_[size_class];
  cache.spans.push_back(first_page);
  cache.trim_at = std::max(cache.trim_at, size_t{2} * kSizeClasses[size_class].count);
  collect_span(cache, first_page);
}

void Member::mark_span(uint64_t first_page, uint64_t pages) noexcept {
  for (uint64_t i = 0; i < pages; ++i) mark(arena_->page_handle(first_page + i));
}

// Turns a run of this member into a span.
void Member::make_span(uint32_t size_class, uint64_t first_page) {
  const SizeClass& c = kSizeClasses[size_class];
  os::Atomic<uint64_t>* owners = arena_->at_span(arena_->page_handle(first_page));
  for (uint32_t i = 0; i < c.count; ++i)
    owners[i].store(owner_free(), os::relaxed);  // order: relaxed; see below
  mark_span(first_page, c.span_pages);
  Room room;
  std::unique_lock<LocalLock> local;
  try {
    local = lock_with_room(size_class, &room);
  } catch (const std::bad_alloc&) {
    RunAllocator(*arena_, incarnation_).release(first_page, c.span_pages);
    throw;
  }
  // COMMIT(arena.span.make): killed before: a run, freed by the reaper; after: a span, which the
  // reaper frees or makes an orphan
  // order: release; pairs with acquire in Arena::locate; publishes the owner words
  arena_->page(first_page)
      .shape.store(make_shape(PageKind::span, size_class, c.span_pages), os::release);
  SHOAL_KILL_POINT("arena.span.make");
  add_span(size_class, first_page);
}

// ---- orphans ----

// Where the next search for orphans of a class begins: at the start in a new epoch, which may have
// new orphans anywhere.
Member::OrphanSearch Member::begin_search(OrphanSearch& last) const noexcept {
  const uint64_t epoch = arena_->header().death_epoch.load();
  if (last.epoch != epoch) last = {epoch, 0};
  return last;
}

// Claims an orphan span of this class; kNoPage: there is none. Advances the search.
uint64_t Member::find_orphan(uint32_t size_class, OrphanSearch* search) noexcept {
  for (;;) {
    const uint64_t page = next_orphan_bit(*arena_, search->from);
    search->from = page == kNoPage ? kNoPage : page + 1;
    if (page == kNoPage) return kNoPage;
    if (shape_class(arena_->page(page).shape.load()) != size_class) continue;
    if (claim_orphan(*arena_, incarnation_, page)) return page;
  }
}

// Adopts a claimed span into the cache of the span's class. That may differ from the class searched
// for: between the check and the claim the span may have been released, and its pages may have
// become a span of another class.
void Member::adopt_span(uint64_t first_page) {
  PageDescriptor& head = arena_->page(first_page);
  const auto size_class = static_cast<uint32_t>(shape_class(head.shape.load()) % kClasses);
  Room room;
  std::unique_lock<LocalLock> local;
  try {
    local = lock_with_room(size_class, &room);
  } catch (const std::bad_alloc&) {
    give_up_claim(*arena_, incarnation_, first_page);
    throw;
  }
  mark_span(first_page, kSizeClasses[size_class].span_pages);
  clear_orphan_bit(*arena_, first_page);
  // COMMIT(arena.span.adopt): killed before: DYING(me); after: this member's; its reaper makes it
  // an orphan again
  head.owner.store(owner_member(incarnation_));
  SHOAL_KILL_POINT("arena.span.adopt");
  add_span(size_class, first_page);
}

// Releases orphan spans in which every block is free.
void Member::sweep_orphans() noexcept {
  for (uint64_t from = 0; from != kNoPage;) {
    const RunsLock lock(*arena_, incarnation_);
    for (uint64_t words = 0; from != kNoPage && words < kBatchWords;) {
      const uint64_t page = next_orphan_bit(*arena_, from);
      from = page == kNoPage ? kNoPage : page + 1;
      if (page != kNoPage) words += sweep_span_locked(page);
    }
  }
}

// Checks one page whose bit is set; returns about how many words it has read. While this member
// holds the RunsLock, no span that a member allocates in becomes an orphan. So if the claim
// succeeds, no member has allocated in the span since its blocks were checked: all are still free.
uint64_t Member::sweep_span_locked(uint64_t page) noexcept {
  const PageDescriptor& head = arena_->page(page);
  const uint64_t shape = head.shape.load();
  if (head.owner.load() != owner_orphan() || shape_kind(shape) != PageKind::span) return 1;
  if (span_is_free(*arena_, page) && claim_orphan(*arena_, incarnation_, page)) {
    clear_orphan_bit(*arena_, page);
    release_run_locked(*arena_, page, shape_pages(shape), now_ms());
  }
  return class_in(shape).count;
}

// ---- trim ----

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
      if (count == std::size(released) || !span_is_free(*arena_, page)) return false;
      if (kept_free++ < keep) return false;
      // COMMIT(arena.span.trim): killed before: this member's; after: DYING(me); either way the
      // reaper releases it
      arena_->page(page).owner.store(owner_dying(incarnation_));
      SHOAL_KILL_POINT("arena.span.trim");
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

}  // namespace shoal::arena
