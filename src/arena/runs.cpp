// SPDX-License-Identifier: Apache-2.0
#include "arena/runs.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "arena/kept_runs.hpp"
#include "arena/lock.hpp"
#include "arena/page_search.hpp"
#include "arena/run_intent.hpp"
#include "os/clock.hpp"
#include "os/memory.hpp"
#include "testing/kill_point.hpp"

namespace shoal::arena {

namespace {

constexpr uint64_t kStepPages = os::kFileStep / kPage;
constexpr uint64_t kMinExtra = 16;    // pages: the first growth is 1 MiB
constexpr uint64_t kPurgeStep = 256;  // pages that one call of decommit() covers: 16 MiB
constexpr uint64_t kPurgeLooks =
    4096;  // pages that a purge looks at in one hold of the lock: 10 us

Bitmaps bitmaps(const Arena& arena) noexcept {
  return {arena.used_bits(), arena.warm_bits(), arena.frontier(), arena.header().pages};
}

uint64_t alignment(uint64_t pages) noexcept { return pages >= kHugeAlign ? kHugeAlign : 1; }

os::Atomic<uint64_t>& recent(const Arena& arena, uint64_t pages) noexcept {
  os::Atomic<uint64_t>* hints = arena.header().recent;
  return hints[std::min(pages, std::size(arena.header().recent)) - 1];
}

// The run of this length that was released last, if it is still free and warm: its contents are
// likely in the processor's cache, and no search is needed. kNoPage: there is none.
uint64_t find_recent(const Arena& arena, uint64_t pages) noexcept {
  const Bitmaps maps = bitmaps(arena);
  const uint64_t hint = recent(arena, pages).load(os::relaxed);  // order: relaxed; under the lock
  if (hint == 0 || hint - 1 + pages > maps.frontier || (hint - 1) % alignment(pages) != 0)
    return kNoPage;
  return all_warm_free(maps, hint - 1, pages) ? hint - 1 : kNoPage;
}

std::string mib(uint64_t bytes) {
  const uint64_t tenths = bytes * 10 / (1 << 20);
  return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + " MiB";
}

}  // namespace

uint64_t now_ms() noexcept { return static_cast<uint64_t>(os::monotonic_coarse_ns()) / 1'000'000; }

// The arena grows by an eighth of its warm pages, 1 to 16 MiB, so that many small runs cost few
// system calls.
uint64_t RunAllocator::growth_extra(uint64_t pages) const noexcept {
  const uint64_t warm = count_bits(arena_.warm_bits(), arena_.frontier());
  const uint64_t step = std::clamp(warm / 8, kMinExtra, kStepPages);
  return step > pages ? step - pages : 0;
}

RunAllocator::Taken RunAllocator::take(uint64_t pages, bool with_extra) {
  const RunsLock lock(arena_, me_);
  uint64_t count = pages;
  uint64_t first = find_recent(arena_, pages);
  if (first == kNoPage) first = find_warm(bitmaps(arena_), pages, alignment(pages));
  const bool warm = first != kNoPage;
  if (!warm) {
    if (with_extra) count += growth_extra(pages);
    first = find_any(bitmaps(arena_), count, alignment(pages));
  }
  if (first == kNoPage) return {kNoPage, 0, false};
  errno = 0;
  if (!extend_frontier_locked(first + count)) return {kNoPage, 0, false, errno};
  mark_for(arena_, me_, arena_.page_handle(first));
  allocate_run_locked(arena_, first, count, owner_member(me_));
  return {first, count, warm};
}

bool RunAllocator::extend_frontier_locked(uint64_t needed) noexcept {
  Header& h = arena_.header();
  const uint64_t old = arena_.frontier();
  if (needed <= old) return true;
  uint64_t frontier = (needed + kMetadataStep - 1) / kMetadataStep * kMetadataStep;
  frontier = std::min(frontier, h.pages / 64 * 64);
  if (needed > frontier) return false;
  const uint64_t from = old / 8;
  const uint64_t bytes = frontier / 8 - from;
  if (!arena_.commit(h.used_offset + from, bytes) || !arena_.commit(h.warm_offset + from, bytes) ||
      !arena_.commit(h.orphan_offset + from, bytes) ||
      !arena_.commit(h.child_offset + from, bytes) || !arena_.commit(h.kept_offset + from, bytes) ||
      !arena_.commit(h.descriptors_offset + old * sizeof(PageDescriptor),
                     (frontier - old) * sizeof(PageDescriptor)))
    return false;
  // COMMIT(arena.frontier): killed before: the next holder of the lock reserves the tables again;
  // after: the tables describe more pages.
  // order: release; pairs with acquire in Arena::frontier; publishes the reserved tables
  h.frontier.store(frontier, os::release);
  SHOAL_KILL_POINT("arena.frontier");
  return true;
}

void RunAllocator::set_warm(uint64_t first, uint64_t pages, bool warm) noexcept {
  for (uint64_t at = first; at < first + pages;) {
    const uint64_t shift = at % 64;
    const uint64_t here = std::min(64 - shift, first + pages - at);
    const uint64_t mask = (here == 64 ? ~uint64_t{0} : (uint64_t{1} << here) - 1) << shift;
    // COMMIT(arena.warm): killed before: unchanged (cold pages are reserved again before use);
    // after: the pages count as having memory, or as having none.
    if (warm)
      arena_.warm_bits()[at / 64].fetch_or(mask);
    else
      arena_.warm_bits()[at / 64].fetch_and(~mask);
    SHOAL_KILL_POINT("arena.warm");
    at += here;
  }
}

RunAllocator::Shortage RunAllocator::find_shortage(uint64_t bytes) const {
  const uint64_t committed = count_bits(arena_.warm_bits(), arena_.frontier()) * kPage;
  const uint64_t own_limit = arena_.header().limit;
  if (own_limit != 0 && committed + bytes > own_limit)
    return {true, own_limit - std::min(own_limit, committed), own_limit,
            "the session's own limit (SHOAL_MEMORY_LIMIT; by default 80 % of the cgroup's or "
            "machine's memory)"};
  const os::MemoryLimit machine = os::memory_limit(arena_.memory_path());
  if (machine.headroom == os::kUnlimited) return {};
  const uint64_t margin = std::clamp(machine.limit / 64, uint64_t{1} << 20, uint64_t{64} << 20);
  if (machine.headroom >= bytes + margin) return {};
  return {true, machine.headroom, machine.limit, machine.which};
}

// The system refuses memory although no known limit is reached.
RunAllocator::Shortage RunAllocator::refused(int error) {
  return {true, 0, 0, std::string("the system: ") + std::strerror(error)};
}

bool RunAllocator::fill_step(uint64_t first, uint64_t pages, Shortage* shortage) {
  *shortage = find_shortage(pages * kPage);
  if (shortage->any) return false;
  if (!arena_.commit(arena_.page_handle(first), pages * kPage)) {
    *shortage = refused(errno);
    return false;
  }
  set_warm(first, pages, true);
  return true;
}

// Reserves memory behind those pages of a run that have none.
bool RunAllocator::fill(uint64_t first, uint64_t pages, Shortage* shortage) {
  const uint64_t end = first + pages;
  // Check the whole request before the first step: pages reserved for a request that then fails
  // count against the cgroup of all processes in it.
  uint64_t cold = 0;
  for (uint64_t at = first; at < end; ++at) cold += test_bit(arena_.warm_bits(), at) ? 0 : 1;
  *shortage = find_shortage(cold * kPage);
  if (shortage->any) return false;
  for (uint64_t at = first; at < end;) {
    if (test_bit(arena_.warm_bits(), at)) {
      ++at;
      continue;
    }
    uint64_t stop = at;
    while (stop < end && stop - at < kStepPages && !test_bit(arena_.warm_bits(), stop)) ++stop;
    if (!fill_step(at, stop - at, shortage)) return false;
    at = stop;
  }
  return true;
}

uint64_t RunAllocator::allocate(uint64_t pages) {
  Shortage shortage;
  for (int attempt = 0; attempt < 3; ++attempt) {
    // First attempt: with room to spare. Second: only what is needed, also from the runs that
    // members keep. Third: the same, after all free memory was given back.
    if (attempt == 1) release_kept(arena_, me_, 0);
    if (attempt == 2 && purge(0) == 0) break;
    const Taken taken = take(pages, attempt == 0);
    if (taken.first == kNoPage) {
      shortage = taken.error != 0 ? refused(taken.error)
                                  : Shortage{true, 0, arena_.reserve(),
                                             "the reserved address space (SHOAL_RESERVE; a third "
                                             "of what ulimit -v leaves)"};
      continue;
    }
    if (taken.warm) return taken.first;
    if (!fill(taken.first, taken.pages, &shortage)) {
      release(taken.first, taken.pages);
      continue;
    }
    if (taken.pages > pages) {
      const RunsLock lock(arena_, me_);
      shrink_run_locked(arena_, taken.first, pages, taken.pages - pages, now_ms());
    }
    return taken.first;
  }
  purge(0);  // gives back what this request filled before a step failed
  exhausted(pages, shortage);
}

void RunAllocator::release(uint64_t first, uint64_t pages) noexcept {
  const uint64_t now = now_ms();
  const RunsLock lock(arena_, me_);
  release_run_locked(arena_, first, pages, now);
  recent(arena_, pages).store(first + 1, os::relaxed);  // order: relaxed; under the lock
}

void RunAllocator::exhausted(uint64_t pages, const Shortage& shortage) const {
  const Bitmaps maps = bitmaps(arena_);
  const uint64_t used = count_bits(maps.used, maps.frontier) * kPage;
  const uint64_t warm = count_bits(maps.warm, maps.frontier) * kPage;
  const std::string left =
      shortage.limit == 0 ? ""
                          : mib(shortage.headroom) + " are left of " + mib(shortage.limit) + ", ";
  throw MemoryExhausted("shoal: no shared memory for " + mib(pages * kPage) +
                        " more: the session uses " + mib(used) + " and holds " + mib(warm) + "; " +
                        left + "limited by " + shortage.which +
                        ". Free arrays and results that are no longer needed, send less at a time, "
                        "or raise that limit.");
}

// Takes as MEMBER(me) the next free warm extent (at most kPurgeStep pages) that was freed long
// enough ago. kNoPage: there is none. `*pages` is 0 if this call has found none yet: the search
// goes on from `*cursor`, so that others get the lock in between.
uint64_t RunAllocator::take_purgeable(uint64_t older_than_ms, uint64_t* cursor, uint64_t* pages) {
  const RunsLock lock(arena_, me_);
  const uint64_t now = now_ms();
  const auto old_enough = [&](uint64_t page) {
    // order: relaxed; under the lock
    return freed_ms(arena_.page(page).shape.load(os::relaxed)) + older_than_ms <= now;
  };
  const Bitmaps maps = bitmaps(arena_);
  *pages = 0;
  for (uint64_t looks = 0; looks < kPurgeLooks;) {
    const Extent extent = next_extent(maps, *cursor, true);
    if (extent.size() == 0) return kNoPage;
    const uint64_t last = std::min(extent.end, extent.begin + kPurgeLooks - looks);
    uint64_t begin = extent.begin;
    while (begin < last && !old_enough(begin)) ++begin;
    uint64_t end = begin;
    while (end < last && end - begin < kPurgeStep && old_enough(end)) ++end;
    looks += end - extent.begin;
    *cursor = end;
    if (begin == end) continue;
    *pages = end - begin;
    mark_for(arena_, me_, arena_.page_handle(begin));
    allocate_run_locked(arena_, begin, *pages, owner_member(me_));
    return begin;
  }
  return *cursor;
}

uint64_t RunAllocator::purge(uint64_t older_than_ms, uint64_t most_bytes) {
  uint64_t given_back = 0;
  uint64_t cursor = 0;
  uint64_t pages = 0;
  while (given_back < most_bytes) {
    const uint64_t first = take_purgeable(older_than_ms, &cursor, &pages);
    if (first == kNoPage) break;
    if (pages == 0) continue;
    set_warm(first, pages, false);
    arena_.decommit(arena_.page_handle(first), pages * kPage);
    release(first, pages);
    given_back += pages * kPage;
  }
  return given_back;
}

}  // namespace shoal::arena
