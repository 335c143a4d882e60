// SPDX-License-Identifier: Apache-2.0
//
// Owner words: the truth about each block, one 64-bit word {payload:60 | kind:4}.
//
//   kind     payload                          who may change it
//   free     0                                the member that allocates in this span or run
//   member   incarnation:30                   that member
//   channel  position:40 | id:20              the winner of the compare-exchange (send, receive)
//   block    parent handle / 64 : 34          the owner of the parent
//   counted  unique number of this sharing    the last holder: counted -> dying(me)
//   named    layers above                     layers above
//   dying    incarnation:30                   that member, which is freeing it (of a span: which
//                                             has claimed it); after its death, its reaper
//   shared   pinned:1 | stored:10 | holding slots:49
//                                             a holder: its own bit, or, if its slot has no bit,
//                                             one unit of `stored`. A member that stores or deletes
//                                             a reference in another block: one unit of `stored`.
//                                             The compare-exchange that removes the last reference
//                                             makes the block MEMBER(me)
//   kept     arena/kept_runs.hpp              runs only: free memory that a member keeps; changed
//   by
//                                             that member, its reaper, or any member that is short
//                                             of memory
//   orphan   0                                spans only: no member allocates here; claimed by
//                                             compare-exchange (arena/orphans.hpp)
//
// All functions are pure.
// Design: docs/design/arena.md
#pragma once

#include <cstdint>

namespace shoal::arena {

using Handle = uint64_t;  // byte offset from the arena's start, multiple of 64; 0 = none
// 30 bits, never 0, never given out twice in a session; slot = incarnation % kMemberSlots
using Incarnation = uint32_t;

inline constexpr uint32_t kMemberSlots = 4096;
inline constexpr uint32_t kHolderSlots = 63;  // members in slots below this can hold counted blocks
inline constexpr uint32_t kSharerSlots = 49;  // members in slots below this have a sharer_bit()

constexpr uint32_t slot_of(Incarnation incarnation) noexcept { return incarnation % kMemberSlots; }

enum class OwnerKind : uint64_t {
  free = 0,
  member = 1,
  channel = 2,
  block = 3,
  counted = 4,
  named = 5,
  dying = 6,
  shared = 7,
  orphan = 8,
  kept = 9,
};

constexpr uint64_t make_owner(OwnerKind kind, uint64_t payload) noexcept {
  return payload << 4 | static_cast<uint64_t>(kind);
}
constexpr uint64_t owner_free() noexcept { return 0; }
constexpr uint64_t owner_orphan() noexcept { return make_owner(OwnerKind::orphan, 0); }
constexpr uint64_t owner_member(Incarnation m) noexcept { return make_owner(OwnerKind::member, m); }
constexpr uint64_t owner_dying(Incarnation m) noexcept { return make_owner(OwnerKind::dying, m); }
constexpr uint64_t owner_channel(uint32_t id, uint64_t position) noexcept {
  constexpr uint64_t kPositionMask = (uint64_t{1} << 40) - 1;
  return make_owner(OwnerKind::channel, (position & kPositionMask) << 20 | (id & 0xFFFFF));
}
constexpr uint64_t owner_block(Handle parent) noexcept {
  return make_owner(OwnerKind::block, parent >> 6);
}
constexpr uint64_t owner_counted(uint64_t number = 0) noexcept {
  return make_owner(OwnerKind::counted, number);
}
constexpr uint64_t owner_named(uint64_t payload) noexcept {
  return make_owner(OwnerKind::named, payload);
}

// The block stays until the session ends: more blocks (and members in slots without a bit) refer to
// it than `stored` can count, or a fork could not get a member slot for its child.
inline constexpr uint64_t kSharedPin = uint64_t{1} << 63;
inline constexpr uint64_t kStoredOnce = uint64_t{1} << (kSharerSlots + 4);  // in the whole word
inline constexpr uint64_t kStoredMask = kSharedPin - kStoredOnce;
constexpr uint64_t sharer_bit(uint32_t slot) noexcept {  // of slots below kSharerSlots
  return make_owner(OwnerKind::free, uint64_t{1} << slot);
}
constexpr uint64_t owner_shared(uint64_t bits) noexcept {
  return bits | static_cast<uint64_t>(OwnerKind::shared);
}

constexpr OwnerKind owner_kind(uint64_t word) noexcept { return static_cast<OwnerKind>(word & 15); }
constexpr uint64_t owner_payload(uint64_t word) noexcept { return word >> 4; }
constexpr bool is_member(uint64_t word) noexcept { return owner_kind(word) == OwnerKind::member; }
constexpr bool is_channel(uint64_t word) noexcept { return owner_kind(word) == OwnerKind::channel; }
constexpr bool is_block(uint64_t word) noexcept { return owner_kind(word) == OwnerKind::block; }
constexpr bool is_counted(uint64_t word) noexcept { return owner_kind(word) == OwnerKind::counted; }
constexpr bool is_shared(uint64_t word) noexcept { return owner_kind(word) == OwnerKind::shared; }
constexpr Incarnation owner_incarnation(uint64_t word) noexcept {  // of member and dying
  return static_cast<Incarnation>(word >> 4);
}
constexpr uint32_t owner_channel_id(uint64_t word) noexcept {
  return static_cast<uint32_t>(word >> 4 & 0xFFFFF);
}
constexpr uint64_t owner_channel_position(uint64_t word) noexcept { return word >> 24; }
constexpr Handle owner_parent(uint64_t word) noexcept { return word >> 4 << 6; }

}  // namespace shoal::arena
