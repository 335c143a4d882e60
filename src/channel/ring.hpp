// SPDX-License-Identifier: Apache-2.0
//
// Ring: a bounded queue of blocks, from many members to many members, that no death can stop or
// break. Any thread of any member may push and pop. Neither sleeps, allocates or throws (a ring
// that another process has scribbled over loses blocks, but is never read out of bounds).
//
// RingState, then `slots` slot words, then (with a byte limit) as many sum words:
//   slot word   63..35 lap   34 full   33..0 block handle / 64         EMPTY(p) FULL(p,b)
//   sum word    63..40 low bits of the lap   39..0 bytes / 64 pushed up to and with this position
//   tail, head  64-bit positions; position p uses slot p % slots, in lap (p mod 2^40) / slots
// At least 2048 slots, so that laps name positions for 2^40 operations: a process may be stopped
// for hours and then find that its compare-exchange fails, as it must.
//
// Truth is the owner word of each block and the slot word; tail and head are hints that trail
// behind by at most one and that anybody moves on:
// 1. slot[p] = FULL(p,b) is published only by the owner of b, after owner[b] = CHANNEL(id,p).
// 2. b at p is still in the ring if and only if slot[p] = FULL(p,b) and owner[b] = CHANNEL(id,p).
//    Taking it is the compare-exchange of owner[b] to MEMBER(me); the slot is emptied afterwards,
//    by the taker or by anybody who finds that the owner word is not CHANNEL(id,p).
// 3. tail <= p+1 for each position ever published, head <= p+1 for each position taken; nobody
//    takes p before tail is p+1 and its sum word is set.
// 4. Items: tail - head. Bytes: sum[tail-1] - sum[head-1]: exact, and nothing to repair.
//
// push of b:  P1 lane: wake = ring, intent_argument = CHANNEL(id,t), intent = b
//             P2 owner[b] = CHANNEL(id,t)   P3 slot[t]: EMPTY(t) -> FULL(t,b)  [commit]
//             P4 sum, tail -> t+1           P5 wake, ring bells   P6 intent = 0, wake = 0
// Killed before P3: the reaper sees intent b, owner[b] exactly as intent_argument says and slot[t]
// not FULL(t,b), and frees b. The exact comparison matters: b may have been taken, and be on its
// way into a ring again in the hands of somebody else. A push that loses P3 to another first takes
// b back (owner[b] = MEMBER(me)).
// pop at h:   slot[h] = FULL(h,b): help P4; owner[b]: CHANNEL(id,h) -> MEMBER(me)  [commit];
//             slot[h] -> EMPTY(h + slots); head -> h+1
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

inline constexpr uint64_t kRingPushIntent = 9;  // lane intents: the kind of a push under way

struct alignas(128) RingState {
  uint32_t magic;
  uint32_t id;         // of owner words: 20 bits
  uint32_t slot_bits;  // log2 of the number of slots
  uint32_t padding;
  uint64_t item_limit;  // 1 .. slots
  uint64_t unit_limit;  // bytes / 64; 0 = no limit, no sum words
  alignas(128) os::Atomic<uint64_t> tail;
  sync::EventCount items;  // "there may be items": notified by pushes
  alignas(128) os::Atomic<uint64_t> head;
  sync::EventCount space;  // "there may be space": notified by pops
};
static_assert(sizeof(RingState) == 384 && offsetof(RingState, tail) == 128 &&
              offsetof(RingState, head) == 256);

class Ring {
 public:
  static constexpr uint32_t kMagic = 0x676e6972;  // "ring"
  static constexpr uint32_t kMinSlotBits = 11;
  static constexpr uint32_t kMaxSlotBits = 24;

  struct Limits {
    uint64_t items = 1024;
    uint64_t bytes = 0;  // 0 = no limit
  };
  // What a ring with these limits occupies. Limits are clipped to what a ring can have.
  static size_t bytes_for(const Limits& limits) noexcept;
  static void create(void* at, uint32_t id, const Limits& limits) noexcept;

  // `state` lies in a block of at least bytes_for() bytes; `handle` is what held words will name
  // (64-byte aligned). Throws CorruptArena when the fields do not fit the block.
  // Pushes ring the armed bells of `board`, if there is one.
  Ring(arena::Arena& arena, RingState* state, arena::Handle handle, BellBoard* board = nullptr);

  enum class [[nodiscard]] Push { ok, full };
  // Moves the caller's block into the ring. `bytes` counts against the byte limit; a block that
  // alone exceeds it is let in when the ring is empty. Full: the block stays the caller's.
  // The block's first 24 bytes: the third word is overwritten when there is a byte limit.
  Push try_push(arena::Member& member, arena::Handle block, uint64_t bytes);
  // The oldest block, now the caller's; 0 when the ring is empty.
  [[nodiscard]] arena::Handle try_pop(arena::Member& member);

  [[nodiscard]] uint64_t length() const noexcept;  // exact when nobody pushes or pops meanwhile
  [[nodiscard]] uint64_t bytes() const noexcept;   // 0 without a byte limit
  [[nodiscard]] bool seems_empty() const noexcept;
  // Would a block of so many bytes be let in now? For waiters: only a hint.
  [[nodiscard]] bool seems_to_fit(uint64_t bytes) const noexcept;
  [[nodiscard]] uint64_t pushed() const noexcept { return state_->tail.load(); }
  [[nodiscard]] uint64_t popped() const noexcept { return state_->head.load(); }
  [[nodiscard]] RingState& state() const noexcept { return *state_; }
  [[nodiscard]] arena::Handle handle() const noexcept { return handle_; }

  // Undoes a push that a dead member had not committed: the block becomes MEMBER(dead) again.
  void reap_push(arena::Incarnation dead, arena::Handle block, uint64_t owner_word) const noexcept;
  // Throws CorruptArena unless all invariants hold. For tests, while nobody pushes or pops.
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

  [[nodiscard]] uint64_t slots() const noexcept { return uint64_t{1} << bits_; }
  [[nodiscard]] uint64_t lap_of(uint64_t position) const noexcept;
  [[nodiscard]] uint64_t empty_word(uint64_t position) const noexcept;
  [[nodiscard]] uint64_t full_word(uint64_t position, arena::Handle block) const noexcept;
  static Unpacked unpack(uint64_t word) noexcept;
  [[nodiscard]] os::Atomic<uint64_t>& slot(uint64_t position) const noexcept;
  [[nodiscard]] os::Atomic<uint64_t>& sum(uint64_t position) const noexcept;
  [[nodiscard]] bool is_ahead(uint64_t lap, uint64_t position) const noexcept;

  [[nodiscard]] Sum sum_before(uint64_t position) const noexcept;
  void publish_sum(uint64_t position, arena::Handle block) const noexcept;
  void help_tail(uint64_t position, arena::Handle block) const noexcept;
  void empty_slot(uint64_t position, uint64_t word) const noexcept;
  uint64_t settled_head() const noexcept;
  void settle_tail() const noexcept;
  bool fits(uint64_t tail, uint64_t units, bool* known) const noexcept;
  Push push_committing(arena::Member& member, arena::Lane& lane, arena::Handle block,
                       uint64_t units) noexcept;

  arena::Arena* arena_;
  RingState* state_;
  arena::Handle handle_;
  BellBoard* board_;
  uint32_t bits_;  // fetched once and checked
  uint32_t id_;
  uint64_t item_limit_;
  uint64_t unit_limit_;
};

}  // namespace shoal::channel
