// SPDX-License-Identifier: Apache-2.0
//
// Reaping: frees all that a dead member held. Any member may reap, but only one at a time for each
// dead member. If the reaper dies, the next reaper starts from the beginning, since every step can
// be repeated:
//   1. the slot becomes dead; slots that the dead member prepared for children of its forks become
//      dead and are reaped
//   2. if the dead member held the arena's lock, it is taken over (by taking the lock)
//   3. upper layers repair the intents in its lanes
//   4. in the pages that the dead member has marked (arena/marks.hpp), blocks MEMBER(dead) and
//      DYING(dead) become DYING(reaper); its bits in records are cleared; records without a holder
//      or a reference become DYING(reaper), and so do blocks whose parent is free or gone. Then, in
//      all pages, the children of these blocks, which arena/kin.hpp finds, until there are none
//   5. all of these are freed; the dead member's spans, and those that it had claimed, are freed or
//      become orphans
//   6. the marks are cleared; death_epoch is incremented, so that other members search for orphans;
//      the slot becomes free
#include "arena/reap.hpp"

#include <algorithm>

#include "arena/fork.hpp"
#include "arena/kept_runs.hpp"
#include "arena/lock.hpp"
#include "arena/orphans.hpp"
#include "arena/page_search.hpp"
#include "arena/record.hpp"
#include "arena/run_intent.hpp"
#include "arena/runs.hpp"
#include "arena/slots.hpp"
#include "os/clock.hpp"
#include "testing/kill_point.hpp"

namespace shoal::arena {

namespace {

// runs and owner words that one batch visits while it holds the lock
constexpr uint64_t kBatchPages = 64;
constexpr uint64_t kBatchWords = 1024;

constexpr uint64_t kSweepNs = 1'000'000'000;

os::Atomic<uint64_t> hooks[16];     // ReapHook by intent kind; set once at start-up by each layer
os::Atomic<uint64_t> end_hooks[8];  // each EndHook once

// Does this thread reap at present? Hooks may allocate, and the allocation must not reap: this
// thread has Member::reaping_.
thread_local bool reaping_here = false;

class ReapLock {
 public:
  explicit ReapLock(std::mutex& one_at_a_time) : lock_(one_at_a_time) { reaping_here = true; }
  ~ReapLock() { reaping_here = false; }
  ReapLock(const ReapLock&) = delete;
  ReapLock& operator=(const ReapLock&) = delete;

 private:
  const std::lock_guard<std::mutex> lock_;
};

ReapHook hook_for(uint64_t kind) noexcept {
  return reinterpret_cast<ReapHook>(hooks[kind & 15].load());
}

bool holds_anything(const Lane& lane) noexcept {
  uint64_t any = lane.intent.load() | lane.wake.load();
  for (const os::Atomic<uint64_t>& held : lane.held) any |= held.load();
  return any != 0;
}

// MemberSlot::reaper
constexpr unsigned kReaperBits = 64 - kLifeBits;
constexpr uint64_t reaper_bits(uint64_t word) noexcept {
  return word & ((uint64_t{1} << kReaperBits) - 1);
}
constexpr uint64_t make_job(Incarnation dead, Incarnation reaper) noexcept {
  return life_of_slot(dead) << kReaperBits | reaper_bits(reaper);
}
constexpr uint64_t life_in_job(uint64_t word) noexcept { return word >> kReaperBits; }

}  // namespace

void register_reap_hook(uint64_t intent_kind, ReapHook hook) noexcept {
  hooks[intent_kind & 15].store(reinterpret_cast<uint64_t>(hook));
}

void register_end_hook(EndHook hook) noexcept {
  const auto wanted = reinterpret_cast<uint64_t>(hook);
  for (os::Atomic<uint64_t>& entry : end_hooks) {
    uint64_t expected = 0;
    if (entry.compare_exchange(expected, wanted) || expected == wanted) return;
  }
}

void end_block(Member& member, Handle block) noexcept {
  thread_local std::vector<Handle>* running = nullptr;  // blocks to be ended; null: no call runs
  if (running != nullptr) {
    try {
      running->push_back(block);
    } catch (const std::exception&) {
      return;  // out of memory: it stays MEMBER(me) until this process ends
    }
    return;
  }
  std::vector<Handle> open;
  running = &open;
  for (Handle next = block; next != 0;) {
    for (const os::Atomic<uint64_t>& entry : end_hooks) {
      const auto hook = reinterpret_cast<EndHook>(entry.load());
      if (hook != nullptr) hook(member.arena(), member, next);
    }
    free_extensions(member, next);
    member.free(next);
    next = open.empty() ? 0 : open.back();
    if (!open.empty()) open.pop_back();
  }
  running = nullptr;
}

Reaping::Job Reaping::run() {
  const Job job = take_job();
  if (job != Job::mine) return job;
  try {
    reap_children();
    repair_lanes();
    scan_marked(Pass::owned);
    end_states();
    for (size_t first = 0, end = 0; first != claimed_.size(); first = end) {
      end = claimed_.size();
      scan_children(first);
    }
  } catch (...) {
    put_back();
    throw;
  }
  for (const Claim& claim : claimed_) give_back(claim);
  scan_marked(Pass::spans);
  return Job::mine;
}

// Makes this member the only reaper: stores {dead | me} in the slot, unless another live member is
// the reaper. The reaper keeps the job until the slot is free. So if this member has won the job
// and then still reads in `state` that `dead` is to be reaped, no other member is reaping or has
// reaped `dead`.
Reaping::Job Reaping::take_job() noexcept {
  MemberSlot& slot = arena_.slot(slot_of(dead_));
  const uint64_t mine = make_job(dead_, me_);
  const uint64_t life = life_of_slot(dead_);
  const auto is_dead = [&] {
    const uint64_t word = slot.state.load();
    const SlotState waits = dead_ == me_ ? SlotState::leaving : SlotState::dead;
    return slot_life(word) == life && slot_state(word) == waits;
  };
  for (uint64_t seen = slot.reaper.load(); seen != mine;) {
    if (life_in_job(seen) > life) return Job::over;
    if (life_in_job(seen) == life &&
        member_alive(arena_, full_number(arena_, reaper_bits(seen), kReaperBits)))
      return is_dead() ? Job::anothers : Job::over;
    // COMMIT(arena.reap.begin): killed before: not begun; after: the next reaper takes over
    const bool done = slot.reaper.compare_exchange(seen, mine);
    SHOAL_KILL_POINT("arena.reap.begin");
    if (done) break;
  }
  return is_dead() ? Job::mine : Job::over;
}

// Returns the blocks that this attempt has claimed, and releases the job. The next attempt, by any
// member, starts over.
void Reaping::put_back() noexcept {
  for (const Claim& claim : claimed_) {
    uint64_t mine = owner_dying(me_);
    // COMMIT(arena.reap.unclaim): killed before: DYING(me), freed with this member; after: the next
    // attempt claims it again
    arena_.owner_word(claim.handle).compare_exchange(mine, owner_dying(dead_));
    SHOAL_KILL_POINT("arena.reap.unclaim");
  }
  claimed_.clear();
  uint64_t mine = make_job(dead_, me_);
  // COMMIT(arena.reap.give_up): killed before: the next reaper takes over; after: the same
  arena_.slot(slot_of(dead_)).reaper.compare_exchange(mine, make_job(dead_, 0));
  SHOAL_KILL_POINT("arena.reap.give_up");
}

// A child that may still become live keeps its slot; reap_all_dead() checks it again later.
void Reaping::reap_children() {
  for (uint32_t i = 0; i < slots_in_use(arena_); ++i) {
    const SeenSlot seen = see_slot(arena_, i);
    const SlotState state = seen.state();
    if (state != SlotState::born && state != SlotState::dead) continue;
    if (arena_.slot(i).parent.load() != dead_ || seen.incarnation() == dead_) continue;
    if (state == SlotState::born &&
        (process_behind_lives(arena_, seen) || !declare_dead(arena_, seen)))
      continue;
    reap_dead(arena_, member_, seen.incarnation());
  }
}

void Reaping::repair_lanes() {
  for (Lane& lane : arena_.slot(slot_of(dead_)).lanes) {
    const uint64_t intent = lane.intent.load();
    if ((intent & 15) != 0 && hook_for(intent) != nullptr)
      hook_for(intent)(arena_, member_, dead_, lane);
    if (hook_for(0) != nullptr && holds_anything(lane)) hook_for(0)(arena_, member_, dead_, lane);
  }
}

// Visits the pages that the dead member has marked. No run or span appears or vanishes while the
// lock is held. It is released between batches: the dead member's blocks do not move then, so none
// is missed. Takes the lock at least once, so that a change of the tables that the dead member had
// begun is complete.
void Reaping::scan_marked(Pass pass) {
  for (uint64_t page = 0; page != kNoPage;) {
    const RunsLock lock(arena_, me_);
    uint64_t words = 0;
    for (uint64_t i = 0; i < kBatchPages && words < kBatchWords && page != kNoPage; ++i) {
      page = marks_.next(page);
      if (page == kNoPage) break;
      words += visit_page(page, pass);
      ++page;
    }
  }
}

// Visits the runs and spans that may contain children of blocks that were claimed from
// `first_claim` on.
void Reaping::scan_children(size_t first_claim) {
  const Parents parents = parents_from(first_claim);
  if (parents.empty()) return;
  for (uint64_t page = 0; page != kNoPage;) {
    const RunsLock lock(arena_, me_);
    uint64_t words = 0;
    for (uint64_t i = 0; i < kBatchWords && words < kBatchWords && page != kNoPage; ++i) {
      page = next_child_bit(arena_, page);
      if (page == kNoPage) break;
      const uint64_t pages = std::max<uint64_t>(shape_pages(arena_.page(page).shape.load()), 1);
      const bool may = parents.may_include(arena_.page(page).kin.load());
      for (uint64_t at = page; may && at < page + pages; ++at)
        words += visit_page(at, Pass::children);
      ++page;
    }
  }
}

Parents Reaping::parents_from(size_t first_claim) const {
  Parents parents;
  for (size_t i = first_claim; i < claimed_.size(); ++i)
    if (may_be_parent(arena_, claimed_[i].handle)) parents.add(claimed_[i].handle);
  parents.seal();
  return parents;
}

// Visits the blocks that start in this page. Returns about how many words it has read.
uint64_t Reaping::visit_page(uint64_t page, Pass pass) {
  const Arena::Located at = arena_.locate(arena_.page_handle(page));
  if (shape_kind(at.shape) == PageKind::span) {
    if (pass != Pass::spans)
      visit_span_page(at, page, pass);
    else if (page == at.first)
      let_go_of_span(page, class_in(at.shape));
    return class_in(at.shape).count;
  }
  if (shape_kind(at.shape) == PageKind::run && page == at.first && pass != Pass::spans)
    visit_block({page, kNotInSpan, arena_.page_handle(page), arena_.page(page).owner}, pass);
  return 1;
}

void Reaping::visit_span_page(Arena::Located span, uint64_t page, Pass pass) {
  const SizeClass& c = class_in(span.shape);
  const Handle start = arena_.page_handle(span.first);
  os::Atomic<uint64_t>* owners = arena_.at_span(start);
  const uint64_t from = (page - span.first) << kPageShift;
  const uint64_t first = from <= c.first ? 0 : (from - c.first + c.size - 1) / c.size;
  const uint64_t end = std::min<uint64_t>((from + kPage - c.first + c.size - 1) / c.size, c.count);
  for (uint64_t i = first; i < end; ++i) {
    // order: relaxed; owner words of the dead member, and of children of dying parents, are stable
    if (owners[i].load(os::relaxed) == owner_free()) continue;
    visit_block({span.first, static_cast<uint32_t>(i), start + c.first + i * c.size, owners[i]},
                pass);
  }
}

// In the pass `owned`, all that the dead member had in one block: claims it if the dead member
// owned it, or was the last that held it.
void Reaping::visit_block(const Place& place, Pass pass) {
  const uint64_t word = place.owner.load();
  if (pass == Pass::owned) {
    if (word == owner_member(dead_) || word == owner_dying(dead_)) return claim(place, word);
    if (is_kept(word) && kept_by(word) == dead_) return claim(place, word);
    if (is_record(word)) return release_record(place);
    if (is_block(word) && is_stray_extension(arena_, place.handle, dead_))
      return claim(place, word);
  }
  if (is_block(word)) claim_child(place);
}

void Reaping::claim(const Place& place, uint64_t word) {
  if (claimed_.size() == claimed_.capacity()) claimed_.reserve(claimed_.size() * 2 + 64);
  member_.mark(place.handle);
  // COMMIT(arena.reap.claim): killed before: the next reaper finds it again; after: the reaper of
  // this reaper finds it as DYING(me).
  if (!place.owner.compare_exchange(word, owner_dying(me_))) return;
  SHOAL_KILL_POINT("arena.reap.claim");
  claimed_.push_back({place.handle, place.page, place.index});
}

// The dead member may also have removed the last reference and died before it could end the record.
void Reaping::release_record(const Place& place) {
  if (claimed_.size() == claimed_.capacity()) claimed_.reserve(claimed_.size() * 2 + 64);
  Record record(arena_, place.handle);
  record.drop_dead(slot_of(dead_));
  member_.mark(place.handle);
  if (record.settle(owner_dying(me_))) claimed_.push_back({place.handle, place.page, place.index});
}

void Reaping::claim_child(const Place& place) {
  const uint64_t word = place.owner.load();
  if (!is_block(word)) return;
  const uint64_t parent = arena_.owner_word(owner_parent(word)).load();
  const bool gone = parent == owner_free() || parent == owner_dying(me_) ||
                    owner_kind(parent) > OwnerKind::orphan;
  if (gone) claim(place, word);
}

// Lets upper layers free what only the claimed blocks refer to.
void Reaping::end_states() const {
  for (const os::Atomic<uint64_t>& entry : end_hooks) {
    const auto hook = reinterpret_cast<EndHook>(entry.load());
    for (size_t i = 0; hook != nullptr && i < claimed_.size(); ++i) {
      hook(arena_, member_, claimed_[i].handle);
    }
  }
  for (const Claim& claim : claimed_) free_extensions(member_, claim.handle);
}

void Reaping::give_back(const Claim& c) {
  if (c.index == kNotInSpan) {
    RunAllocator(arena_, me_).release(c.page, arena_.block_size(c.handle) >> kPageShift);
    return;
  }
  // COMMIT(arena.reap.free): killed before: DYING(me), found by the next reaper; after: free
  arena_.owner_word(c.handle).store(owner_free());
  SHOAL_KILL_POINT("arena.reap.free");
}

void Reaping::let_go_of_span(uint64_t page, const SizeClass& c) {
  const uint64_t owner = arena_.page(page).owner.load();
  if (owner != owner_member(dead_) && owner != owner_dying(dead_)) return;
  if (!span_is_free(arena_, page)) return make_orphan(arena_, page);
  clear_orphan_bit(arena_, page);
  release_run_locked(arena_, page, c.span_pages, now_ms());
}

void Reaping::finish() noexcept {
  marks_.clear();
  arena_.header().death_epoch.fetch_add(1);
  set_slot_free(arena_, see_slot(arena_, slot_of(dead_)));
}

bool reap_dead(Arena& arena, Member& reaper, Incarnation dead) {
  Reaping reaping(arena, reaper, dead);
  const Reaping::Job job = reaping.run();
  if (job == Reaping::Job::mine) reaping.finish();
  return job != Reaping::Job::anothers;
}

bool reap(Arena& arena, Member& reaper, Incarnation dead) {
  if (dead == 0 || reaper.incarnation() == 0 || dead == reaper.incarnation()) return false;
  const ReapLock one_at_a_time(reaper.reaping_);
  const SeenSlot seen = see_slot(arena, slot_of(dead));
  if (seen.incarnation() != dead || seen.state() == SlotState::free) return true;  // already reaped
  if (is_listed(seen.state()) && (process_behind_lives(arena, seen) || !declare_dead(arena, seen)))
    return false;
  return reap_dead(arena, reaper, dead);
}

int reap_all_dead(Arena& arena, Member& reaper) {
  int reaped = 0;
  for (uint32_t i = 0; i < slots_in_use(arena); ++i) {
    const SeenSlot seen = see_slot(arena, i);
    if (seen.state() == SlotState::free || seen.incarnation() == reaper.incarnation()) continue;
    if (reap(arena, reaper, seen.incarnation())) ++reaped;
  }
  return reaped;
}

int reap_for_memory(Arena& arena, Member& reaper) {
  return reaping_here ? 0 : reap_all_dead(arena, reaper);
}

void reap_if_due(Arena& arena, Member& reaper) {
  os::Atomic<uint64_t>& next = arena.header().next_sweep_ns;
  const auto now = static_cast<uint64_t>(os::monotonic_ns());
  uint64_t due = next.load();
  if (now >= due && next.compare_exchange(due, now + kSweepNs)) reap_all_dead(arena, reaper);
}

void Member::leave() noexcept {
  if (incarnation_ == 0) return;
  unregister_for_fork(*this);
  {
    const std::lock_guard<LocalLock> local(local_);
    restore_views();
  }
  const ReapLock one_at_a_time(reaping_);
  if (advance_slot(*arena_, incarnation_, SlotState::leaving)) {
    try {
      reap_dead(*arena_, *this, incarnation_);
    } catch (const std::exception&) {
      advance_slot(*arena_, incarnation_, SlotState::dead);  // another member reaps it
    }
  }
  const std::lock_guard<LocalLock> local(local_);
  forget();
  incarnation_ = 0;
}

}  // namespace shoal::arena
