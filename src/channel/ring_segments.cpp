// SPDX-License-Identifier: Apache-2.0
//
// Ring: the circle of segments. The previous lap's `next` names the segment that serves a lap. One
// compare-exchange on that word decides it, and also inserts a new segment into the circle. All
// other words here are hints, which any member may correct.
#include <new>

#include "arena/kin.hpp"
#include "channel/ring_words.hpp"
#include "testing/kill_point.hpp"

namespace shoal::channel {

size_t Ring::segment_bytes() const noexcept {
  const size_t words = (unit_limit_ != 0 ? 2 : 1) * RingSegment::kSlots;
  return sizeof(RingSegment) + words * sizeof(uint64_t);
}

RingSegment* Ring::first_segment() const noexcept {
  return reinterpret_cast<RingSegment*>(state_ + 1);
}

RingSegment* Ring::segment_in(uint64_t link) const noexcept {
  const arena::Handle handle = handle_in(link);
  if (handle == 0 || !arena_->contains(handle, segment_bytes())) return nullptr;
  return arena_->at<RingSegment>(handle);
}

// Sets the base of `segment` for `lap` from the last sum of the segment before. It is set before
// tail_segment moves to `segment`, so every push and pop in the segment finds it set.
void Ring::publish_base(RingSegment* before, RingSegment* segment, uint64_t lap) const noexcept {
  if (unit_limit_ == 0) return;
  uint64_t word = segment->base.load();
  const uint64_t last = sum(before, RingSegment::kSlots - 1).load();
  if (!is_earlier_sum(word, lap) || !is_sum_of(last, lap_before(lap))) return;
  // COMMIT(ring.segment.base): killed before: the member that moves tail_segment sets it; after:
  // set.
  segment->base.compare_exchange(word, sum_word(lap, last));
  SHOAL_KILL_POINT("ring.segment.base");
}

// Moves tail_segment, whose value was `link`, one lap on. False: the next lap has no segment yet.
bool Ring::advance_tail(uint64_t link) const noexcept {
  RingSegment* const segment = segment_in(link);
  if (segment == nullptr) return false;
  const uint64_t next = segment->next.load();
  const uint64_t lap = lap_after(lap_in(link));
  if (lap_in(next) != lap) return state_->tail_segment.load() != link;  // true: `link` is old
  RingSegment* const after = segment_in(next);
  if (after == nullptr) return false;
  publish_base(segment, after, lap);
  // COMMIT(ring.segment.tail): killed before: the next push moves it; after: moved.
  state_->tail_segment.compare_exchange(link, next);
  SHOAL_KILL_POINT("ring.segment.tail");
  return true;
}

// The same for head_segment. tail_segment moves first (invariant 5).
bool Ring::advance_head(uint64_t link) const noexcept {
  const uint64_t tail_link = state_->tail_segment.load();
  if (lap_in(tail_link) == lap_in(link) && !advance_tail(tail_link)) return false;
  RingSegment* const segment = segment_in(link);
  if (segment == nullptr) return false;
  const uint64_t next = segment->next.load();
  if (lap_in(next) != lap_after(lap_in(link))) return state_->head_segment.load() != link;
  // COMMIT(ring.segment.head): killed before: the next pop moves it; after: the segment is free.
  state_->head_segment.compare_exchange(link, next);
  SHOAL_KILL_POINT("ring.segment.head");
  return true;
}

Ring::Place Ring::tail_place(uint64_t position) const noexcept {
  const uint64_t lap = lap_of(position);
  for (;;) {
    const uint64_t link = state_->tail_segment.load();
    if (lap_in(link) == lap) return {segment_in(link), false};
    if (lap_after(lap_in(link)) != lap) return {nullptr, true};
    if (!advance_tail(link)) return {nullptr, false};
  }
}

Ring::Place Ring::head_place(uint64_t position) const noexcept {
  const uint64_t lap = lap_of(position);
  for (;;) {
    const uint64_t link = state_->head_segment.load();
    if (lap_in(link) == lap) return {segment_in(link), false};
    if (lap_after(lap_in(link)) != lap) return {nullptr, true};
    if (!advance_head(link)) return {nullptr, false};
  }
}

// Is the segment's lap over? `next` carries the lap after the segment's own. Once a segment is
// reusable it stays so until an extend() chooses it.
bool Ring::is_reusable(RingSegment* segment) const noexcept {
  const uint64_t lap = lap_before(lap_in(segment->next.load()));
  return is_later(lap_in(state_->head_segment.load()), lap);
}

// Makes all words of a segment say "not used yet" for `lap`.
void Ring::empty_words(RingSegment* segment, uint64_t lap, bool with_sums) noexcept {
  for (uint64_t i = 0; i < RingSegment::kSlots; ++i) {
    new (&slot(segment, i)) os::Atomic<uint64_t>(taken_word(lap_before(lap)));
    if (with_sums) new (&sum(segment, i)) os::Atomic<uint64_t>(sum_word(lap_before(lap), 0));
  }
}

// Makes a segment for `lap`, owned by this member, with all slots empty; its `next` is `next`.
arena::Handle Ring::new_segment(arena::Member& member, uint64_t lap, arena::Handle next) const {
  const arena::Handle fresh = member.allocate(segment_bytes());
  auto* const segment = new (arena_->address(fresh)) RingSegment{};
  segment->next.store(link_word(lap, next));
  segment->base.store(sum_word(lap_before(lap), 0));
  empty_words(segment, lap, unit_limit_ != 0);
  return fresh;
}

// Inserts this member's block `fresh` into the circle. False: another member was faster, and the
// block is this member's again.
bool Ring::link_segment(arena::Member& member, RingSegment* after, uint64_t link,
                        arena::Handle fresh) const noexcept {
  const arena::LaneGuard lane(member);
  lane->intent_argument.store(handle_);
  lane->intent.store(fresh | kRingSegmentIntent);
  os::Atomic<uint64_t>& owner = arena_->owner_word(fresh);
  arena::make_kin(*arena_, fresh, handle_);
  // COMMIT(ring.segment.owner): killed before: the scan frees it; after: reap_segment() does.
  owner.store(arena::owner_block(handle_));
  SHOAL_KILL_POINT("ring.segment.owner");
  const uint64_t lap = lap_in(arena_->at<RingSegment>(fresh)->next.load());
  // COMMIT(ring.segment.link): killed before: reap_segment() frees it; after: in the circle.
  const bool linked = after->next.compare_exchange(link, link_word(lap, fresh));
  SHOAL_KILL_POINT("ring.segment.link");
  if (!linked) {
    // COMMIT(ring.segment.back): killed before: reap_segment() frees it; after: the scan does.
    owner.store(arena::owner_member(member.incarnation()));
    SHOAL_KILL_POINT("ring.segment.back");
  }
  lane->intent.store(0);
  return linked;
}

// Decides which segment serves the lap after tail_segment's, if that is still open. Throws
// MemoryExhausted.
void Ring::extend(arena::Member& member) {
  const uint64_t tail_link = state_->tail_segment.load();
  RingSegment* const last = segment_in(tail_link);
  const uint64_t lap = lap_after(lap_in(tail_link));
  uint64_t link = last == nullptr ? 0 : last->next.load();
  RingSegment* const following = segment_in(link);
  if (following == nullptr) throw arena::CorruptArena("ring: a link that names no segment");
  if (lap_in(link) == lap || state_->tail_segment.load() != tail_link) return;
  if (following != last && is_reusable(following)) {
    // COMMIT(ring.segment.reuse): killed before: still open; after: it serves the lap.
    last->next.compare_exchange(link, link_word(lap, handle_in(link)));
    SHOAL_KILL_POINT("ring.segment.reuse");
    return;
  }
  const arena::Handle fresh = new_segment(member, lap, handle_in(link));
  if (!link_segment(member, last, link, fresh)) member.free(fresh);
}

// Walks the circle. The circle only grows: a segment that is in it stays in it.
bool Ring::is_in_circle(arena::Handle segment) const noexcept {
  const RingSegment* at = first_segment();
  for (uint64_t i = 0; i < kMostSegments; ++i) {
    if (arena_->handle_of(at) == segment) return true;
    at = segment_in(at->next.load());
    if (at == nullptr || at == first_segment()) return false;
  }
  return true;
}

uint64_t Ring::segments() const noexcept {
  uint64_t count = 1;
  const RingSegment* at = segment_in(first_segment()->next.load());
  while (at != nullptr && at != first_segment() && count < kMostSegments) {
    at = segment_in(at->next.load());
    ++count;
  }
  return count;
}

void Ring::reap_segment(arena::Incarnation dead, arena::Handle segment) const noexcept {
  if (is_in_circle(segment)) return;
  uint64_t expected = arena::owner_block(handle_);
  arena::give_to_dead(*arena_, dead, segment, expected);
}

void Ring::free_segments(arena::Member& member) noexcept {
  const RingSegment* at = segment_in(first_segment()->next.load());
  for (uint64_t i = 0; at != nullptr && at != first_segment() && i < kMostSegments; ++i) {
    const arena::Handle segment = arena_->handle_of(at);
    at = segment_in(at->next.load());
    // COMMIT(ring.segment.free): killed before: the reaper frees it with the ring; after: free.
    member.free_child(segment, handle_);
    SHOAL_KILL_POINT("ring.segment.free");
  }
}

}  // namespace shoal::channel
