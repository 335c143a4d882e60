// SPDX-License-Identifier: Apache-2.0
#include "channel/ring.hpp"

#include <bit>
#include <new>
#include <string>

#include "testing/kill_point.hpp"

namespace shoal::channel {

namespace {

constexpr uint64_t kPositionMask = (uint64_t{1} << 40) - 1;
constexpr uint64_t kBlockMask = (uint64_t{1} << 34) - 1;
constexpr uint64_t kFull = uint64_t{1} << 34;
constexpr uint64_t kLapShift = 35;
constexpr uint64_t kUnitMask = (uint64_t{1} << 40) - 1;
constexpr uint64_t kSumLapMask = (uint64_t{1} << 24) - 1;
constexpr uint32_t kMaxAttempts = 1u << 16;  // only a ring that was scribbled over needs so many
constexpr size_t kSumOffset = 16;            // in the block: the bytes pushed up to and with it

uint32_t slot_bits_for(uint64_t items) noexcept {
  const auto bits = static_cast<uint32_t>(std::bit_width(items == 0 ? 0 : items - 1));
  if (bits < Ring::kMinSlotBits) return Ring::kMinSlotBits;
  return bits < Ring::kMaxSlotBits ? bits : Ring::kMaxSlotBits;
}

uint64_t units_for(uint64_t bytes) noexcept { return bytes / 64 + (bytes % 64 != 0 ? 1 : 0); }

// Helpers read this word of a block that may be somebody else's by now; publish_sum() says why
// what is read then is not used. ThreadSanitizer need not look.
__attribute__((no_sanitize("thread"))) uint64_t read_sum(const std::byte* block) noexcept {
  return *reinterpret_cast<const volatile uint64_t*>(block + kSumOffset);
}

}  // namespace

size_t Ring::bytes_for(const Limits& limits) noexcept {
  const size_t words = (limits.bytes != 0 ? 2 : 1) * (size_t{1} << slot_bits_for(limits.items));
  return sizeof(RingState) + words * sizeof(uint64_t);
}

void Ring::create(void* at, uint32_t id, const Limits& limits) noexcept {
  auto* const state = new (at) RingState{};
  state->id = id;
  state->slot_bits = slot_bits_for(limits.items);
  const uint64_t slots = uint64_t{1} << state->slot_bits;
  state->item_limit = limits.items == 0 || limits.items > slots ? slots : limits.items;
  state->unit_limit = units_for(limits.bytes);
  auto* const words = reinterpret_cast<os::Atomic<uint64_t>*>(state + 1);
  const uint64_t count = limits.bytes != 0 ? 2 * slots : slots;
  for (uint64_t i = 0; i < count; ++i) new (words + i) os::Atomic<uint64_t>(0);
  state->magic = kMagic;
}

Ring::Ring(arena::Arena& arena, RingState* state, arena::Handle handle, BellBoard* board)
    : arena_(&arena),
      state_(state),
      handle_(handle),
      board_(board),
      bits_(state->slot_bits),
      id_(state->id),
      item_limit_(state->item_limit),
      unit_limit_(state->unit_limit) {
  const bool bits_ok = bits_ >= kMinSlotBits && bits_ <= kMaxSlotBits;
  const size_t words = bits_ok ? (unit_limit_ != 0 ? 2 : 1) * (size_t{1} << bits_) : 0;
  if (state->magic != kMagic || !bits_ok || item_limit_ == 0 || item_limit_ > slots() ||
      !arena.contains(arena.handle_of(state), sizeof(RingState) + words * sizeof(uint64_t))) {
    throw arena::CorruptArena("no ring at offset " + std::to_string(arena.handle_of(state)));
  }
}

uint64_t Ring::lap_of(uint64_t position) const noexcept {
  return (position & kPositionMask) >> bits_;
}

uint64_t Ring::empty_word(uint64_t position) const noexcept {
  return lap_of(position) << kLapShift;
}

uint64_t Ring::full_word(uint64_t position, arena::Handle block) const noexcept {
  return lap_of(position) << kLapShift | kFull | block >> 6;
}

Ring::Unpacked Ring::unpack(uint64_t word) noexcept {
  return {word >> kLapShift, (word & kFull) != 0, (word & kBlockMask) << 6};
}

os::Atomic<uint64_t>& Ring::slot(uint64_t position) const noexcept {
  return reinterpret_cast<os::Atomic<uint64_t>*>(state_ + 1)[position & (slots() - 1)];
}

os::Atomic<uint64_t>& Ring::sum(uint64_t position) const noexcept {
  return (&slot(0) + slots())[position & (slots() - 1)];
}

// Is the lap, read in the slot of `position`, a later one than that of the position?
bool Ring::is_ahead(uint64_t lap, uint64_t position) const noexcept {
  const uint64_t laps = (kPositionMask >> bits_) + 1;
  const uint64_t distance = (lap - lap_of(position)) & (laps - 1);
  return distance != 0 && distance < laps / 2;
}

Ring::Sum Ring::sum_before(uint64_t position) const noexcept {
  if (position == 0) return {0, true};
  const uint64_t word = sum(position - 1).load();
  const uint64_t tag = (lap_of(position - 1) + 1) & kSumLapMask;  // + 1: an unused word is 0
  return {word & kUnitMask, word >> 40 == tag};
}

// Sets sum[position] from the word in the block, which the pusher wrote before it published. Once
// it is set nobody sets it again in this lap; and nobody takes the block before it is set. So who
// comes late, and reads a block that is no longer in the ring, finds the word set or fails.
void Ring::publish_sum(uint64_t position, arena::Handle block) const noexcept {
  if (unit_limit_ == 0) return;
  const uint64_t tag = (lap_of(position) + 1) & kSumLapMask;
  uint64_t word = sum(position).load();
  if (word >> 40 == tag || !arena_->contains(block, kSumOffset + sizeof(uint64_t))) return;
  const uint64_t units = read_sum(arena_->at<std::byte>(block)) & kUnitMask;
  // COMMIT(ring.push.sum): killed before: who helps the tail sets it; after: set.
  sum(position).compare_exchange(word, tag << 40 | units);
  SHOAL_KILL_POINT("ring.push.sum");
}

void Ring::help_tail(uint64_t position, arena::Handle block) const noexcept {
  if (state_->tail.load() != position) return;
  publish_sum(position, block);
  uint64_t expected = position;
  // COMMIT(ring.push.tail): killed before: the next one moves the tail; after: moved.
  state_->tail.compare_exchange(expected, position + 1);
  SHOAL_KILL_POINT("ring.push.tail");
}

void Ring::empty_slot(uint64_t position, uint64_t word) const noexcept {
  uint64_t expected = word;
  // COMMIT(ring.pop.slot): killed before: the next pop empties it; after: empty for the next lap.
  slot(position).compare_exchange(expected, empty_word(position + slots()));
  SHOAL_KILL_POINT("ring.pop.slot");
  expected = position;
  // COMMIT(ring.pop.head): killed before: the next one moves the head; after: moved.
  state_->head.compare_exchange(expected, position + 1);
  SHOAL_KILL_POINT("ring.pop.head");
}

// The head, after moving it past everything that has been taken.
uint64_t Ring::settled_head() const noexcept {
  for (;;) {
    uint64_t head = state_->head.load();
    const uint64_t word = slot(head).load();
    const Unpacked found = unpack(word);
    if (found.lap == lap_of(head) && found.full) {
      help_tail(head, found.block);
      if (arena_->owner_word(found.block).load() == arena::owner_channel(id_, head)) return head;
      empty_slot(head, word);
    } else if (is_ahead(found.lap, head)) {
      state_->head.compare_exchange(head, head + 1);
    } else {
      return head;
    }
  }
}

void Ring::settle_tail() const noexcept {
  for (;;) {
    const uint64_t tail = state_->tail.load();
    const Unpacked found = unpack(slot(tail).load());
    if (found.lap != lap_of(tail) || !found.full) return;
    help_tail(tail, found.block);
  }
}

// Is there room for a block at position `tail`? `known` false: the question came too late, ask
// anew.
bool Ring::fits(uint64_t tail, uint64_t units, bool* known) const noexcept {
  *known = true;
  const uint64_t head = settled_head();
  if (tail - head >= item_limit_) {
    *known = tail >= head;  // else the tail read is old
    return false;
  }
  if (unit_limit_ == 0 || tail == head) return true;
  const Sum pushed = sum_before(tail);
  const Sum popped = sum_before(head);
  *known = pushed.valid && popped.valid;
  const uint64_t used = (pushed.units - popped.units) & kUnitMask;
  return used + units <= unit_limit_;
}

Ring::Push Ring::push_committing(arena::Member& member, arena::Lane& lane, arena::Handle block,
                                 uint64_t units) noexcept {
  os::Atomic<uint64_t>& owner = arena_->owner_word(block);
  for (uint32_t attempts = 0; attempts < kMaxAttempts; ++attempts) {
    uint64_t tail = state_->tail.load();
    const Unpacked found = unpack(slot(tail).load());
    if (found.lap == lap_of(tail) && found.full) {
      help_tail(tail, found.block);
      continue;
    }
    bool known = false;
    const bool room = fits(tail, units, &known);
    if (!known || state_->tail.load() != tail) continue;
    if (!room) return Push::full;
    if (found.lap != lap_of(tail)) {  // old news, or the slot was scribbled over
      if (is_ahead(found.lap, tail)) state_->tail.compare_exchange(tail, tail + 1);
      continue;
    }
    if (unit_limit_ != 0) {
      const Sum before = sum_before(tail);
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
    // order: release; pairs with the acquire of who takes the block; publishes its contents
    owner.store(in_ring, os::release);
    SHOAL_KILL_POINT("ring.push.owner");
    uint64_t expected = empty_word(tail);
    // COMMIT(ring.push.slot): killed before: reap_push() frees the block; after: pushed.
    if (slot(tail).compare_exchange(expected, full_word(tail, block))) {
      SHOAL_KILL_POINT("ring.push.slot");
      help_tail(tail, block);
      return Push::ok;
    }
    // COMMIT(ring.push.back): killed before: reap_push() frees the block; after: the scan does.
    owner.store(arena::owner_member(member.incarnation()));
    SHOAL_KILL_POINT("ring.push.back");
  }
  return Push::full;
}

Ring::Push Ring::try_push(arena::Member& member, arena::Handle block, uint64_t bytes) {
  SHOAL_KILL_POINT("ring.push.enter");
  const arena::LaneGuard lane(member);
  // order: relaxed; as for the intent
  lane->wake.store(handle_ | static_cast<uint64_t>(sync::HeldKind::ring_items), os::relaxed);
  const Push result = push_committing(member, *lane, block, units_for(bytes));
  if (result == Push::ok) {
    state_->items.notify_one();
    if (board_ != nullptr) board_->ring_armed();
  }
  // COMMIT(ring.push.done): killed before: a reaper wakes the sleepers again; after: done.
  // order: release, twice; keeps what came before it; read only after this process is dead
  lane->intent.store(0, os::release);
  lane->wake.store(0, os::release);
  SHOAL_KILL_POINT("ring.push.done");
  return result;
}

arena::Handle Ring::try_pop(arena::Member& member) {
  SHOAL_KILL_POINT("ring.pop.enter");
  if (seems_empty()) return 0;
  sync::Holds& holds = sync::Holds::of(member);
  const int held = holds.publish_surely(handle_, sync::HeldKind::ring_space);
  arena::Handle block = 0;
  for (;;) {
    const uint64_t head = settled_head();
    const uint64_t word = slot(head).load();
    const Unpacked found = unpack(word);
    if (is_ahead(found.lap, head)) continue;
    if (found.lap != lap_of(head) || !found.full) break;
    uint64_t expected = arena::owner_channel(id_, head);
    // COMMIT(ring.pop.owner): killed before: still in the ring; after: the dead had it in hand.
    if (!arena_->owner_word(found.block)
             .compare_exchange(expected, arena::owner_member(holds.incarnation()))) {
      continue;
    }
    SHOAL_KILL_POINT("ring.pop.owner");
    block = found.block;
    empty_slot(head, word);
    break;
  }
  if (block != 0) {
    if (unit_limit_ != 0) {
      state_->space.notify_all();  // the one that is woken might be too large
    } else {
      state_->space.notify_one();
    }
  }
  holds.clear(held);
  return block;
}

bool Ring::seems_empty() const noexcept {
  const uint64_t head = state_->head.load();
  const Unpacked found = unpack(slot(head).load());
  return found.lap == lap_of(head) && !found.full;
}

bool Ring::seems_to_fit(uint64_t bytes) const noexcept {
  bool known = false;
  return fits(state_->tail.load(), units_for(bytes), &known) || !known;
}

uint64_t Ring::length() const noexcept {
  for (;;) {
    settle_tail();
    const uint64_t head = settled_head();
    const uint64_t tail = state_->tail.load();
    if (state_->head.load() == head) return tail > head ? tail - head : 0;
  }
}

uint64_t Ring::bytes() const noexcept {
  if (unit_limit_ == 0) return 0;
  for (;;) {
    settle_tail();
    const uint64_t head = settled_head();
    const Sum popped = sum_before(head);
    const Sum pushed = sum_before(state_->tail.load());
    if (!pushed.valid || !popped.valid || state_->head.load() != head) continue;
    return ((pushed.units - popped.units) & kUnitMask) * 64;
  }
}

void Ring::reap_push(arena::Incarnation dead, arena::Handle block,
                     uint64_t owner_word) const noexcept {
  if (!arena::is_channel(owner_word) || arena::owner_channel_id(owner_word) != id_) return;
  const uint64_t position = arena::owner_channel_position(owner_word);
  if (slot(position).load() == full_word(position, block)) return;  // it was published
  // The slot may have been emptied since; then the block was taken and its owner is not this.
  arena_->owner_word(block).compare_exchange(owner_word, arena::owner_member(dead));
}

void Ring::check() const {
  const uint64_t head = settled_head();
  settle_tail();
  const uint64_t tail = state_->tail.load();
  const auto demand = [&](bool holds, const char* what, uint64_t position) {
    if (holds) return;
    throw arena::CorruptArena(std::string("ring: ") + what + " at position " +
                              std::to_string(position));
  };
  demand(tail >= head && tail - head <= item_limit_, "more items than the limit", tail);
  for (uint64_t at = head; at < tail; ++at) {
    const Unpacked found = unpack(slot(at).load());
    demand(found.full && found.lap == lap_of(at), "slot not full", at);
    demand(arena_->owner_word(found.block).load() == arena::owner_channel(id_, at), "owner", at);
  }
  for (uint64_t at = tail; at < head + slots(); ++at) {
    demand(slot(at).load() == empty_word(at), "slot not empty", at);
  }
}

}  // namespace shoal::channel
