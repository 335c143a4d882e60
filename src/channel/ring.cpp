// SPDX-License-Identifier: Apache-2.0
#include "channel/ring.hpp"

#include <new>
#include <string>

#include "channel/ring_words.hpp"
#include "testing/kill_point.hpp"

namespace shoal::channel {

namespace {

constexpr size_t kSumOffset = 16;  // in the block: bytes / 64 pushed up to and with this block

uint64_t units_for(uint64_t bytes) noexcept { return bytes / 64 + (bytes % 64 != 0 ? 1 : 0); }

// A member that helps reads this word of a block that may belong to another member by now;
// publish_sum() says why a wrong value is not used. So ThreadSanitizer must not report it.
__attribute__((no_sanitize("thread"))) uint64_t read_sum(const std::byte* block) noexcept {
  return *reinterpret_cast<const volatile uint64_t*>(block + kSumOffset);
}

}  // namespace

size_t Ring::bytes_for(const Limits& limits) noexcept {
  const size_t words = (limits.bytes != 0 ? 2 : 1) * RingSegment::kSlots;
  return sizeof(RingState) + sizeof(RingSegment) + words * sizeof(uint64_t);
}

void Ring::create(void* at, uint32_t id, const Limits& limits, arena::Handle handle) noexcept {
  auto* const state = new (at) RingState{};
  state->id = id;
  state->item_limit = limits.items;
  state->unit_limit = units_for(limits.bytes);
  auto* const segment = new (state + 1) RingSegment{};
  const uint64_t lap = lap_of(first_position(id));
  const uint64_t link = link_word(lap, handle + sizeof(RingState));
  segment->next.store(link);
  segment->base.store(sum_word(lap, 0));
  empty_words(segment, lap, limits.bytes != 0);
  state->tail.store(first_position(id));
  state->head.store(first_position(id));
  state->tail_segment.store(link);
  state->head_segment.store(link);
  state->magic = kMagic;
}

Ring::Ring(arena::Arena& arena, RingState* state, arena::Handle handle, Bell* items, Bell* space)
    : arena_(&arena),
      state_(state),
      handle_(handle),
      items_bell_(items),
      space_bell_(space),
      id_(arena::owner_channel_id(arena::owner_channel(state->id, 0))),
      first_(first_position(state->id)),
      item_limit_(state->item_limit),
      unit_limit_(state->unit_limit) {
  if (state->magic != kMagic ||
      !arena.contains(arena.handle_of(state), sizeof(RingState) + segment_bytes())) {
    throw arena::CorruptArena("no ring at offset " + std::to_string(arena.handle_of(state)));
  }
}

// Rings whose numbers agree in the low 20 bits begin 2^28 positions apart, all in the first half of
// the laps.
uint64_t Ring::first_position(uint32_t id) noexcept {
  constexpr uint64_t kLapsApart = (uint64_t{1} << 28) / RingSegment::kSlots;
  const uint64_t others = id >> 20 & 0x7FF;
  return (1 + others * kLapsApart) * RingSegment::kSlots;
}

uint64_t Ring::full_word(uint64_t position, arena::Handle block) noexcept {
  return lap_of(position) << kLapShift | kFull | block >> 6;
}

Ring::Unpacked Ring::unpack(uint64_t word) noexcept {
  return {lap_in(word), (word & kFull) != 0, handle_in(word)};
}

os::Atomic<uint64_t>& Ring::slot(RingSegment* segment, uint64_t position) noexcept {
  return reinterpret_cast<os::Atomic<uint64_t>*>(segment + 1)[index_of(position)];
}

os::Atomic<uint64_t>& Ring::sum(RingSegment* segment, uint64_t position) noexcept {
  return (&slot(segment, 0) + RingSegment::kSlots)[index_of(position)];
}

Ring::Sum Ring::sum_before(RingSegment* segment, uint64_t position) const noexcept {
  const uint64_t word =
      index_of(position) == 0 ? segment->base.load() : sum(segment, position - 1).load();
  return {word & kUnitMask, is_sum_of(word, lap_of(position))};
}

// Sets sum[position] from the word in the block, which the pusher wrote before it published. The
// sum is set once per lap, and no member takes the block before that. So if a member is late and
// reads a block that is no longer in the ring, it finds the sum set, or its compare-exchange fails.
void Ring::publish_sum(RingSegment* segment, uint64_t position,
                       arena::Handle block) const noexcept {
  if (unit_limit_ == 0) return;
  uint64_t word = sum(segment, position).load();
  if (!is_earlier_sum(word, lap_of(position))) return;
  if (!arena_->contains(block, kSumOffset + sizeof(uint64_t))) return;
  const uint64_t units = read_sum(arena_->at<std::byte>(block));
  // COMMIT(ring.push.sum): killed before: the member that moves the tail sets it; after: set.
  sum(segment, position).compare_exchange(word, sum_word(lap_of(position), units));
  SHOAL_KILL_POINT("ring.push.sum");
}

void Ring::help_tail(RingSegment* segment, uint64_t position, arena::Handle block) const noexcept {
  if (state_->tail.load() != position) return;
  publish_sum(segment, position, block);
  uint64_t expected = position;
  // COMMIT(ring.push.tail): killed before: the next push or pop moves the tail; after: moved.
  state_->tail.compare_exchange(expected, position + 1);
  SHOAL_KILL_POINT("ring.push.tail");
}

void Ring::mark_taken(RingSegment* segment, uint64_t position, uint64_t word) const noexcept {
  uint64_t expected = word;
  // COMMIT(ring.pop.slot): killed before: the next pop marks it; after: taken.
  slot(segment, position).compare_exchange(expected, taken_word(lap_of(position)));
  SHOAL_KILL_POINT("ring.pop.slot");
  expected = position;
  // COMMIT(ring.pop.head): killed before: the next push or pop moves the head; after: moved.
  state_->head.compare_exchange(expected, position + 1);
  SHOAL_KILL_POINT("ring.pop.head");
}

// The head, after moving it past everything that was taken. `*segment` is its segment; nullptr when
// no push has reached this lap yet.
uint64_t Ring::settled_head(RingSegment** segment) const noexcept {
  uint64_t head = state_->head.load();
  for (uint32_t attempts = 0; attempts < kMaxAttempts; ++attempts, head = state_->head.load()) {
    const Place place = head_place(head);
    *segment = place.segment;
    if (place.stale) continue;
    if (place.segment == nullptr) return head;
    const uint64_t word = slot(place.segment, head).load();
    const Unpacked found = unpack(word);
    if (found.lap == lap_of(head) && found.full) {
      help_tail(place.segment, head, found.block);
      if (arena_->owner_word(found.block).load() == arena::owner_channel(id_, head)) return head;
      mark_taken(place.segment, head, word);
    } else if (is_later(lap_of(head), found.lap)) {
      return head;
    } else {
      state_->head.compare_exchange(head, head + 1);  // taken; a later lap: `head` is old
    }
  }
  return head;
}

void Ring::settle_tail() const noexcept {
  for (uint32_t attempts = 0; attempts < kMaxAttempts; ++attempts) {
    const uint64_t tail = state_->tail.load();
    const Place place = tail_place(tail);
    if (place.stale) continue;
    if (place.segment == nullptr) return;
    const Unpacked found = unpack(slot(place.segment, tail).load());
    if (found.lap != lap_of(tail) || !found.full) return;
    help_tail(place.segment, tail, found.block);
  }
}

// Is there room for a block at position `tail`, which lies in `segment`? `*known` = false: `tail`
// is old by now, the caller must load it again.
bool Ring::fits(RingSegment* segment, uint64_t tail, uint64_t units, bool* known) const noexcept {
  *known = true;
  if (item_limit_ == 0 && unit_limit_ == 0) return true;
  RingSegment* head_segment = nullptr;
  const uint64_t head = settled_head(&head_segment);
  if (item_limit_ != 0 && tail - head >= item_limit_) {
    *known = tail >= head;  // otherwise `tail` is old
    return false;
  }
  if (unit_limit_ == 0 || tail == head) return true;
  *known = head_segment != nullptr;
  if (!*known) return false;
  const Sum pushed = sum_before(segment, tail);
  const Sum popped = sum_before(head_segment, head);
  *known = pushed.valid && popped.valid;
  const uint64_t used = (pushed.units - popped.units) & kUnitMask;
  return used + units <= unit_limit_;
}

Ring::Attempt Ring::push_committing(arena::Member& member, arena::Lane& lane, arena::Handle block,
                                    uint64_t units) noexcept {
  os::Atomic<uint64_t>& owner = arena_->owner_word(block);
  for (uint32_t attempts = 0; attempts < kMaxAttempts; ++attempts) {
    uint64_t tail = state_->tail.load();
    const Place place = tail_place(tail);
    if (place.stale) continue;
    if (place.segment == nullptr) return Attempt::no_segment;
    os::Atomic<uint64_t>& at = slot(place.segment, tail);
    uint64_t word = at.load();
    const Unpacked found = unpack(word);
    if (found.lap == lap_of(tail) && found.full) {
      help_tail(place.segment, tail, found.block);
      continue;
    }
    if (!is_later(lap_of(tail), found.lap)) {
      state_->tail.compare_exchange(tail, tail + 1);  // `tail` is old, or the ring is corrupt
      continue;
    }
    bool known = false;
    const bool room = fits(place.segment, tail, units, &known);
    if (!known || state_->tail.load() != tail) continue;
    if (!room) return Attempt::full;
    if (unit_limit_ != 0) {
      const Sum before = sum_before(place.segment, tail);
      if (!before.valid) continue;
      *reinterpret_cast<uint64_t*>(arena_->at<std::byte>(block) + kSumOffset) =
          before.units + units;
    }
    const uint64_t in_ring = arena::owner_channel(id_, tail);
    // order: relaxed, twice; read only after this process is dead; the seq_cst stores that follow
    // keep the compiler from moving them down
    lane.intent_argument.store(in_ring, os::relaxed);
    lane.intent.store(block | kRingPushIntent, os::relaxed);
    // COMMIT(ring.push.owner): killed before: the scan frees the block; after: reap_push() does.
    // order: release; pairs with the acquire of the member that takes the block; publishes its
    // contents
    owner.store(in_ring, os::release);
    SHOAL_KILL_POINT("ring.push.owner");
    // COMMIT(ring.push.slot): killed before: reap_push() frees the block; after: pushed.
    if (at.compare_exchange(word, full_word(tail, block))) {
      SHOAL_KILL_POINT("ring.push.slot");
      help_tail(place.segment, tail, block);
      return Attempt::ok;
    }
    // COMMIT(ring.push.back): killed before: reap_push() frees the block; after: the scan does.
    owner.store(arena::owner_member(member.incarnation()));
    SHOAL_KILL_POINT("ring.push.back");
  }
  return Attempt::gave_up;
}

Ring::Push Ring::try_push(arena::Member& member, arena::Handle block, uint64_t bytes) {
  SHOAL_KILL_POINT("ring.push.enter");
  Attempt result = Attempt::gave_up;
  do {
    if (result == Attempt::no_segment) extend(member);
    const arena::LaneGuard lane(member);
    // order: relaxed; for the same reason as the intent
    lane->wake.store(handle_ | static_cast<uint64_t>(sync::HeldKind::ring_items), os::relaxed);
    result = push_committing(member, *lane, block, units_for(bytes));
    if (result == Attempt::ok) {
      state_->items.notify_one();
      if (items_bell_ != nullptr) items_bell_->more(member);
    }
    if (space_bell_ != nullptr) space_bell_->less(member);
    // COMMIT(ring.push.done): killed before: a reaper wakes the sleepers again; after: done.
    // order: release, twice; the stores above come first; read only after this process is dead
    lane->intent.store(0, os::release);
    lane->wake.store(0, os::release);
    SHOAL_KILL_POINT("ring.push.done");
  } while (result == Attempt::no_segment);
  return result == Attempt::ok ? Push::ok : Push::full;
}

arena::Handle Ring::try_pop(arena::Member& member) {
  SHOAL_KILL_POINT("ring.pop.enter");
  if (seems_empty()) {
    if (items_bell_ != nullptr) items_bell_->less(member);  // its taker may have died before this
    return 0;
  }
  sync::Holds& holds = sync::Holds::of(member);
  const int held = holds.publish(handle_, sync::HeldKind::ring_space, true);
  if (held == sync::Holds::kNone) [[unlikely]]
    return pop_in_lane(member);
  const arena::Handle block = pop_first(member);
  holds.clear(held);
  return block;
}

// Without a held word, the wake word of a lane names the ring: senders behind a bell have no tick,
// so only a reaper can ring it for a dead member.
arena::Handle Ring::pop_in_lane(arena::Member& member) {
  const arena::LaneGuard lane(member);
  lane->wake.store(handle_ | static_cast<uint64_t>(sync::HeldKind::ring_space));
  const arena::Handle block = pop_first(member);
  lane->wake.store(0);
  return block;
}

arena::Handle Ring::pop_first(arena::Member& member) {
  arena::Handle block = 0;
  for (uint32_t attempts = 0; attempts < kMaxAttempts; ++attempts) {
    RingSegment* segment = nullptr;
    const uint64_t head = settled_head(&segment);
    if (segment == nullptr) break;
    const uint64_t word = slot(segment, head).load();
    const Unpacked found = unpack(word);
    if (is_later(found.lap, lap_of(head))) continue;
    if (found.lap != lap_of(head)) break;
    if (!found.full) continue;
    help_tail(segment, head, found.block);  // it may have been pushed after settled_head()
    uint64_t expected = arena::owner_channel(id_, head);
    member.mark(found.block);
    // COMMIT(ring.pop.owner): killed before: still in the ring; after: the scan frees it.
    if (!arena_->owner_word(found.block)
             .compare_exchange(expected, arena::owner_member(member.incarnation()))) {
      continue;
    }
    SHOAL_KILL_POINT("ring.pop.owner");
    block = found.block;
    mark_taken(segment, head, word);
    break;
  }
  if (block != 0) {
    if (unit_limit_ != 0) {
      state_->space.notify_all();  // not one: the woken sender's message may be too large
    } else if (item_limit_ != 0) {
      state_->space.notify_one();
    }
    if (space_bell_ != nullptr) space_bell_->more(member);
  }
  if (items_bell_ != nullptr) items_bell_->less(member);
  return block;
}

bool Ring::seems_empty() const noexcept {
  const uint64_t head = state_->head.load();
  const Place place = head_place(head);
  if (place.segment == nullptr) return !place.stale;
  return is_later(lap_of(head), unpack(slot(place.segment, head).load()).lap);
}

bool Ring::has_item() const noexcept {
  RingSegment* segment = nullptr;
  const uint64_t head = settled_head(&segment);
  if (segment == nullptr) return false;
  const Unpacked found = unpack(slot(segment, head).load());
  return found.lap == lap_of(head) && found.full;
}

// Does not use fits(), which needs the segment of `tail`: there may be none yet.
bool Ring::seems_to_fit(uint64_t size) const noexcept {
  if (item_limit_ == 0 && unit_limit_ == 0) return true;
  const uint64_t items = length();
  if (item_limit_ != 0 && items >= item_limit_) return false;
  return unit_limit_ == 0 || items == 0 || bytes() / 64 + units_for(size) <= unit_limit_;
}

uint64_t Ring::length() const noexcept {
  RingSegment* segment = nullptr;
  for (uint32_t attempts = 0; attempts < kMaxAttempts; ++attempts) {
    settle_tail();
    const uint64_t head = settled_head(&segment);
    const uint64_t tail = state_->tail.load();
    if (state_->head.load() == head) return tail > head ? tail - head : 0;
  }
  return 0;
}

uint64_t Ring::bytes() const noexcept {
  if (unit_limit_ == 0) return 0;
  RingSegment* segment = nullptr;
  for (uint32_t attempts = 0; attempts < kMaxAttempts; ++attempts) {
    settle_tail();
    const uint64_t head = settled_head(&segment);
    const uint64_t tail = state_->tail.load();
    if (tail == head) return 0;
    const Place place = tail_place(tail);
    // While the next lap has no segment, the wanted sum is the last one of this lap.
    RingSegment* const last =
        place.segment == nullptr ? segment_in(state_->tail_segment.load()) : place.segment;
    if (segment == nullptr || last == nullptr || place.stale) continue;
    const Sum popped = sum_before(segment, head);
    uint64_t units = sum(last, tail - 1).load();
    if (index_of(tail) == 0 && place.segment != nullptr) units = last->base.load();
    const uint64_t lap = place.segment == nullptr ? lap_of(tail - 1) : lap_of(tail);
    if (!is_sum_of(units, lap) || !popped.valid || state_->head.load() != head) continue;
    return ((units - popped.units) & kUnitMask) * 64;
  }
  return 0;
}

// The slot may be marked as taken, or its segment reused for a later lap: then the block was taken,
// and its owner word differs from the intent's argument. While the block is in the ring,
// head_segment stays at its lap or before, and no segment from head_segment on is reused.
void Ring::reap_push(arena::Incarnation dead, arena::Handle block,
                     uint64_t owner_word) const noexcept {
  if (!arena::is_channel(owner_word) || arena::owner_channel_id(owner_word) != id_) return;
  const uint64_t position = arena::owner_channel_position(owner_word);
  uint64_t link = state_->head_segment.load();
  for (uint64_t steps = 0; steps < kMostSegments; ++steps) {
    RingSegment* const segment = segment_in(link);
    if (segment == nullptr || is_later(lap_in(link), lap_of(position))) break;
    if (lap_in(link) == lap_of(position)) {
      if (slot(segment, position).load() == full_word(position, block)) return;  // published
      break;
    }
    const uint64_t next = segment->next.load();
    if (lap_in(next) == lap_after(lap_in(link))) {
      link = next;
    } else if (const uint64_t now = state_->head_segment.load(); now != link) {
      link = now;
    } else {
      break;
    }
  }
  arena::give_to_dead(*arena_, dead, block, owner_word);
}

void Ring::check() const {
  RingSegment* segment = nullptr;
  const uint64_t head = settled_head(&segment);
  settle_tail();
  const uint64_t tail = state_->tail.load();
  const auto demand = [&](bool holds, const char* what, uint64_t position) {
    if (holds) return;
    throw arena::CorruptArena(std::string("ring: ") + what + " at position " +
                              std::to_string(position));
  };
  demand(tail >= head && (item_limit_ == 0 || tail - head <= item_limit_), "more than the limit",
         tail);
  for (uint64_t at = head; at < tail; ++at) {
    demand(segment != nullptr, "no segment", at);
    const Unpacked found = unpack(slot(segment, at).load());
    demand(found.full && found.lap == lap_of(at), "slot not full", at);
    demand(arena_->owner_word(found.block).load() == arena::owner_channel(id_, at), "owner", at);
    if (index_of(at + 1) != 0) continue;
    const uint64_t next = segment->next.load();
    segment = lap_in(next) == lap_of(at + 1) ? segment_in(next) : nullptr;
  }
  for (uint64_t at = tail; segment != nullptr && lap_of(at) == lap_of(tail); ++at) {
    demand(is_later(lap_of(at), lap_in(slot(segment, at).load())), "slot not empty", at);
  }
}

}  // namespace shoal::channel
