// SPDX-License-Identifier: Apache-2.0
//
// Ring: a queue of blocks, from many members to many members, bounded or not, that no death can
// stop or break. Any thread of any member may push and pop. Neither sleeps; a push may allocate a
// segment and throw MemoryExhausted. (A ring that another process has overwritten with wrong bytes
// loses blocks, but is never read out of bounds.)
//
// A *member* is a process that has joined the session. Its *lane* is a record in shared memory in
// which a thread notes what it is about to do, for the reaper that cleans up if the process dies.
//
// Positions count from 2048 or, if the ring's number does not fit into owner words, from a later
// multiple of 2048: rings that have the same number in owner words must not use the same positions.
// The positions of one lap (position / 2048) share a segment, a block with 2048 slot words.
// Segments form a circle. The circle grows when all segments are in use, and never shrinks while
// the ring exists:
//   slot word   63..35 lap   34 full   33..0 block handle / 64         FULL(p,b) TAKEN(p)
//   sum word    63..40 low bits of the lap   39..0 bytes / 64 pushed up to and with this position
//   link word   63..35 lap   33..0 segment handle / 64
//   next        a link word in each segment. Let the segment serve lap L. If `next` names lap
//               L + 1, the segment in `next` serves that lap. If it names another lap, no segment
//               is chosen for lap L + 1 yet, and the segment in `next` is only the neighbour in the
//               circle.
//   head_segment, tail_segment   link words: the segments of head and tail, or of one lap before
// The lap in a slot word never goes down, and within one lap the word goes from FULL to TAKEN once.
// So no value ever returns, and the compare-exchange of a process that was stopped for hours fails
// (29 bits of lap and 11 bits of position: a value returns only after 2^40 operations). A slot word
// whose lap is earlier than its segment's lap means that the position is not used yet.
//
// The owner word of each block and the slot words alone say what is in the ring. tail and head are
// hints: each may be one behind, and any member may advance them.
// 1. Only the member that owned b stores FULL(p,b) in slot[p], after it has set owner[b] to
//    CHANNEL(id,p).
// 2. b at p is still in the ring if and only if slot[p] = FULL(p,b) and owner[b] = CHANNEL(id,p).
//    Taking it is the compare-exchange of owner[b] to MEMBER(me). The slot is marked afterwards,
//    by the taker or by any member that finds that the owner word is not CHANNEL(id,p).
// 3. tail is at most one past the last position published, head at most one past the last position
//    taken. No member takes position p before tail is beyond p and the sum word of p is set.
// 4. The ring holds tail - head items of sum[tail-1] - sum[head-1] bytes. Both follow from words
//    that exist anyway: there is no counter that a death could leave wrong.
// 5. lap(head_segment) <= lap(tail_segment). No member pushes at p before tail_segment has reached
//    p's lap, or pops at p before head_segment has. Segments of laps before head_segment's may be
//    reused.
// 6. One compare-exchange, of the previous lap's `next`, decides which segment serves a lap.
//
// push of b:  P1 lane: wake = ring, intent_argument = CHANNEL(id,t), intent = b
//             P2 owner[b] = CHANNEL(id,t)   P3 slot[t]: an earlier lap -> FULL(t,b)  [commit]
//             P4 sum, tail -> t+1           P5 wake waiting receivers, ring the bells
//             P6 intent = 0, wake = 0
// Killed before P2: b is still among the dead member's blocks, which its reaper frees ("the scan").
// Killed between P2 and P3: the reaper sees intent b, owner[b] exactly as intent_argument says and
// slot[t] not FULL(t,b); it makes b the dead member's again, and so frees it. The exact comparison
// matters: if the push did commit, another member may have taken b and be pushing it into a ring
// again, and then owner[b] names another position. A push whose compare-exchange P3 fails, because
// another push was faster, sets owner[b] back to MEMBER(me) before it tries the next position.
//
// pop at h:   slot[h] = FULL(h,b): help P4; owner[b]: CHANNEL(id,h) -> MEMBER(me)  [commit];
//             slot[h] -> TAKEN(h); head -> h+1
//
// extend (ring_segments.cpp), when tail has reached a lap without a segment: chooses the next
// segment in the circle if that is free. Otherwise it inserts a new segment before that one.
//
// Design: docs/design/channel.md
#pragma once

#include <cstddef>
#include <cstdint>

#include "arena/arena.hpp"
#include "channel/bell.hpp"
#include "os/atomic.hpp"
#include "sync/event_count.hpp"
#include "sync/holds.hpp"

namespace shoal::channel {

// Kinds of a lane's intent: a push, an extension.
inline constexpr uint64_t kRingPushIntent = 9;
inline constexpr uint64_t kRingSegmentIntent = 11;

// The first segment lies right after the RingState, in the same block. The owner word of each other
// segment is BLOCK(that block), so that all are freed with it.
struct RingSegment {
  static constexpr uint32_t kSlotBits = 11;
  static constexpr uint64_t kSlots = uint64_t{1} << kSlotBits;
  os::Atomic<uint64_t> next;  // link word
  os::Atomic<uint64_t> base;  // sum word: bytes / 64 pushed before this lap
  uint64_t spare[6];          // the slot words follow, then, with a byte limit, the sum words
};
static_assert(sizeof(RingSegment) == 64);

struct alignas(128) RingState {
  uint32_t magic;
  uint32_t id;          // the ring's number; CHANNEL(id,p) has its low 20 bits
  uint64_t item_limit;  // 0 = none
  uint64_t unit_limit;  // bytes / 64; 0 = no limit, no sum words
  alignas(128) os::Atomic<uint64_t> tail;
  os::Atomic<uint64_t> tail_segment;
  sync::EventCount items;  // "there may be items": notified by pushes
  alignas(128) os::Atomic<uint64_t> head;
  os::Atomic<uint64_t> head_segment;
  sync::EventCount space;  // "there may be space": notified by pops
};
static_assert(sizeof(RingState) == 384 && offsetof(RingState, tail) == 128 &&
              offsetof(RingState, head) == 256);

class Ring {
 public:
  static constexpr uint32_t kMagic = 0x676e6972;  // "ring"

  struct Limits {
    uint64_t items = 1024;  // 0 = no limit
    uint64_t bytes = 0;     // 0 = no limit
  };
  // The size of a ring with these limits and one segment.
  static size_t bytes_for(const Limits& limits) noexcept;
  // No other ring of the session may have the number `id`.
  static void create(void* at, uint32_t id, const Limits& limits, arena::Handle handle) noexcept;

  // `handle`: the block in which `state` lies; a member's held words and the owner words of
  // segments name the ring by it. (create() takes the handle of the RingState itself.) Throws
  // CorruptArena when the fields of `state` contradict each other. A push rings the bell `items`, a
  // pop the bell `space`, if given.
  Ring(arena::Arena& arena, RingState* state, arena::Handle handle, Bell* items = nullptr,
       Bell* space = nullptr);

  enum class [[nodiscard]] Push { ok, full };
  // Moves the caller's block into the ring. `bytes` counts against the byte limit; a block that
  // alone exceeds it is let in when the ring is empty. On `full`, and when this throws
  // MemoryExhausted, the block stays the caller's. A corrupt ring may return `full` when it is not:
  // see Attempt::gave_up. With a byte limit, the third 8-byte word of the block is overwritten.
  Push try_push(arena::Member& member, arena::Handle block, uint64_t bytes);
  // The oldest block, now the caller's; 0 when the ring is empty.
  [[nodiscard]] arena::Handle try_pop(arena::Member& member);

  [[nodiscard]] uint64_t length() const noexcept;  // exact unless a push or pop runs concurrently
  [[nodiscard]] uint64_t bytes() const noexcept;   // 0 without a byte limit
  [[nodiscard]] bool seems_empty() const noexcept;
  // As !seems_empty(), but a block that a dead member has taken does not count.
  [[nodiscard]] bool has_item() const noexcept;
  // Would a block of `size` bytes be let in now? Exact unless a push or pop runs concurrently.
  [[nodiscard]] bool seems_to_fit(uint64_t size) const noexcept;
  [[nodiscard]] uint64_t pushed() const noexcept { return state_->tail.load() - first_; }
  // As pushed(), and exact even if the last pusher died before it moved the tail.
  [[nodiscard]] uint64_t settled_pushed() const noexcept {
    settle_tail();
    return pushed();
  }
  [[nodiscard]] uint64_t popped() const noexcept { return state_->head.load() - first_; }
  [[nodiscard]] RingState& state() const noexcept { return *state_; }
  [[nodiscard]] arena::Handle handle() const noexcept { return handle_; }
  [[nodiscard]] uint64_t segments() const noexcept;

  // Undoes a push that a dead member had not committed: the block becomes MEMBER(dead) again.
  void reap_push(arena::Incarnation dead, arena::Handle block, uint64_t owner_word) const noexcept;
  // The same for a new segment that a dead member had not put into the circle.
  void reap_segment(arena::Incarnation dead, arena::Handle segment) const noexcept;
  // Frees all segments but the first. No other thread may use the ring meanwhile.
  void free_segments(arena::Member& member) noexcept;
  // Throws CorruptArena unless all invariants hold. For tests, while no push or pop runs.
  void check() const;

 private:
  struct Unpacked {
    uint64_t lap;
    bool full;
    arena::Handle block;
  };
  struct Sum {
    uint64_t units;
    bool valid;
  };
  // A position's segment. nullptr: the position's lap has no segment yet, or (stale) the head or
  // tail has passed the position's lap.
  struct Place {
    RingSegment* segment;
    bool stale;
  };
  // gave_up: kMaxAttempts attempts failed, which only happens in a corrupt ring.
  enum class Attempt { ok, full, no_segment, gave_up };

  static uint64_t first_position(uint32_t id) noexcept;
  static uint64_t full_word(uint64_t position, arena::Handle block) noexcept;
  static Unpacked unpack(uint64_t word) noexcept;
  static os::Atomic<uint64_t>& slot(RingSegment* segment, uint64_t position) noexcept;
  static os::Atomic<uint64_t>& sum(RingSegment* segment, uint64_t position) noexcept;

  static void empty_words(RingSegment* segment, uint64_t lap, bool with_sums) noexcept;
  [[nodiscard]] size_t segment_bytes() const noexcept;
  [[nodiscard]] RingSegment* segment_in(uint64_t link) const noexcept;
  [[nodiscard]] RingSegment* first_segment() const noexcept;
  [[nodiscard]] Place tail_place(uint64_t position) const noexcept;
  [[nodiscard]] Place head_place(uint64_t position) const noexcept;
  bool advance_tail(uint64_t link) const noexcept;
  bool advance_head(uint64_t link) const noexcept;
  void publish_base(RingSegment* before, RingSegment* segment, uint64_t lap) const noexcept;
  [[nodiscard]] bool is_reusable(RingSegment* segment) const noexcept;
  void extend(arena::Member& member);
  [[nodiscard]] arena::Handle new_segment(arena::Member& member, uint64_t lap,
                                          arena::Handle next) const;
  bool link_segment(arena::Member& member, RingSegment* after, uint64_t link,
                    arena::Handle fresh) const noexcept;
  [[nodiscard]] bool is_in_circle(arena::Handle segment) const noexcept;

  [[nodiscard]] Sum sum_before(RingSegment* segment, uint64_t position) const noexcept;
  void publish_sum(RingSegment* segment, uint64_t position, arena::Handle block) const noexcept;
  void help_tail(RingSegment* segment, uint64_t position, arena::Handle block) const noexcept;
  arena::Handle pop_in_lane(arena::Member& member);
  arena::Handle pop_first(arena::Member& member);
  void mark_taken(RingSegment* segment, uint64_t position, uint64_t word) const noexcept;
  uint64_t settled_head(RingSegment** segment) const noexcept;
  void settle_tail() const noexcept;
  bool fits(RingSegment* segment, uint64_t tail, uint64_t units, bool* known) const noexcept;
  Attempt push_committing(arena::Member& member, arena::Lane& lane, arena::Handle block,
                          uint64_t units) noexcept;

  arena::Arena* arena_;
  RingState* state_;
  arena::Handle handle_;
  Bell* items_bell_;
  Bell* space_bell_;
  // Copies, read once, so that later writes to the shared words do no harm.
  uint32_t id_;     // the 20 bits in owner words
  uint64_t first_;  // the position of the first push
  uint64_t item_limit_;
  uint64_t unit_limit_;
};

}  // namespace shoal::channel
