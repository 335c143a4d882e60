// SPDX-License-Identifier: Apache-2.0
#include "arena/run_intent.hpp"

#include "arena/kept_runs.hpp"
#include "arena/kin.hpp"
#include "testing/kill_point.hpp"

namespace shoal::arena {

namespace {

// Stores below are relaxed: only holders of the lock write these words, and a seq_cst store to `op`
// precedes and follows them, so that the next holder after a death sees them in program order.
// Readers without the lock look at shape and owner of runs that they own.

void set_bits(os::Atomic<uint64_t>* bits, uint64_t from, uint64_t count, bool on) noexcept {
  while (count > 0) {
    const uint64_t shift = from % 64;
    const uint64_t here = count < 64 - shift ? count : 64 - shift;
    const uint64_t mask = (here == 64 ? ~uint64_t{0} : (uint64_t{1} << here) - 1) << shift;
    os::Atomic<uint64_t>& word = bits[from / 64];
    const uint64_t before = word.load(os::relaxed);                // order: relaxed; under the lock
    word.store(on ? before | mask : before & ~mask, os::relaxed);  // order: relaxed; under the lock
    from += here;
    count -= here;
  }
}

void carry_out_allocate(Arena& arena, const RunIntent& intent) noexcept {
  const uint64_t first = intent.first.load();
  const uint64_t pages = intent.pages.load();
  set_bits(arena.used_bits(), first, pages, true);
  for (uint64_t i = 1; i < pages; ++i)
    arena.page(first + i).shape.store(make_tail(i), os::relaxed);  // order: relaxed; see above
  PageDescriptor& head = arena.page(first);
  head.holders.store(0, os::relaxed);                  // order: relaxed; see above
  head.more.store(0, os::relaxed);                     // order: relaxed; see above
  head.owner.store(intent.owner.load(), os::relaxed);  // order: relaxed; see above
  // COMMIT(arena.run.allocate): killed before: done by the next holder; after: done again
  // order: release; pairs with acquire in Arena::locate; publishes the tails and the owner
  head.shape.store(intent.shape.load(), os::release);
  SHOAL_KILL_POINT("arena.run.allocate");
}

void free_pages(Arena& arena, uint64_t from, uint64_t count, uint64_t shape) noexcept {
  for (uint64_t i = 0; i < count; ++i)
    arena.page(from + i).shape.store(shape, os::relaxed);  // order: relaxed; see above
  set_bits(arena.used_bits(), from, count, false);
}

void carry_out_release(Arena& arena, const RunIntent& intent) noexcept {
  const uint64_t first = intent.first.load();
  // COMMIT(arena.run.release): killed before: done by the next holder; after: done again
  free_pages(arena, first, intent.pages.load(), intent.shape.load());
  SHOAL_KILL_POINT("arena.run.release");
  clear_kin(arena, first);
  unlist_kept(arena, first);
  arena.page(first).holders.store(0, os::relaxed);           // order: relaxed; see above
  arena.page(first).more.store(0, os::relaxed);              // order: relaxed; see above
  arena.page(first).owner.store(owner_free(), os::relaxed);  // order: relaxed; see above
}

void carry_out_shrink(Arena& arena, const RunIntent& intent) noexcept {
  const uint64_t first = intent.first.load();
  const uint64_t keep = intent.pages.load();
  // COMMIT(arena.run.shrink): killed before: done by the next holder; after: done again
  // order: relaxed; see above
  arena.page(first).shape.store(make_shape(PageKind::run, 0, keep), os::relaxed);
  SHOAL_KILL_POINT("arena.run.shrink");
  free_pages(arena, first + keep, intent.extra.load(), intent.shape.load());
}

void carry_out(Arena& arena, const RunIntent& intent) noexcept {
  switch (static_cast<RunOp>(intent.op.load())) {
    case RunOp::none:
      return;
    case RunOp::allocate:
      return carry_out_allocate(arena, intent);
    case RunOp::release:
      return carry_out_release(arena, intent);
    case RunOp::shrink:
      return carry_out_shrink(arena, intent);
  }
}

// Do the pages of the intent, which may have been overwritten by a faulty process, lie within the
// tables?
bool plausible(const Arena& arena, const RunIntent& intent) noexcept {
  const uint64_t frontier = arena.frontier();
  const uint64_t first = intent.first.load();
  const uint64_t pages = intent.pages.load();
  const uint64_t extra = intent.extra.load();
  return first < frontier && pages <= frontier - first && extra <= frontier - first - pages;
}

struct Plan {
  RunOp op;
  uint64_t first, pages, extra, shape, owner;
};

void perform(Arena& arena, const Plan& plan) noexcept {
  RunIntent& intent = arena.header().intent;
  // order: relaxed for all; published by the store to op
  intent.first.store(plan.first, os::relaxed);
  intent.pages.store(plan.pages, os::relaxed);  // order: relaxed; as above
  intent.extra.store(plan.extra, os::relaxed);  // order: relaxed; as above
  intent.shape.store(plan.shape, os::relaxed);  // order: relaxed; as above
  intent.owner.store(plan.owner, os::relaxed);  // order: relaxed; as above
  // COMMIT(arena.intent.begin): killed before: nothing happened; after: the next holder completes
  // it
  intent.op.store(static_cast<uint64_t>(plan.op));
  SHOAL_KILL_POINT("arena.intent.begin");
  finish_intent(arena);
}

}  // namespace

void finish_intent(Arena& arena) noexcept {
  RunIntent& intent = arena.header().intent;
  if (plausible(arena, intent)) carry_out(arena, intent);
  // COMMIT(arena.intent.end): killed before: done again, with the same result; after: done
  intent.op.store(static_cast<uint64_t>(RunOp::none));
  SHOAL_KILL_POINT("arena.intent.end");
}

void allocate_run_locked(Arena& arena, uint64_t first, uint64_t pages, uint64_t owner) noexcept {
  perform(arena, {RunOp::allocate, first, pages, 0, make_shape(PageKind::run, 0, pages), owner});
}

void release_run_locked(Arena& arena, uint64_t first, uint64_t pages, uint64_t now_ms) noexcept {
  perform(arena, {RunOp::release, first, pages, 0, make_free_page(now_ms), 0});
}

void shrink_run_locked(Arena& arena, uint64_t first, uint64_t keep, uint64_t extra,
                       uint64_t now_ms) noexcept {
  perform(arena, {RunOp::shrink, first, keep, extra, make_free_page(now_ms), 0});
}

}  // namespace shoal::arena
