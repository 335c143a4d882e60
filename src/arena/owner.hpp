// SPDX-License-Identifier: Apache-2.0
//
// Owner words: the truth about each block, one 64-bit word {payload:60 | kind:4}.
//
//   kind     payload                          who may change it
//   free     0                                the member that allocates in this span or run
//   member   incarnation:42                   that member
//   channel  position:40 | id:20              the winner of the compare-exchange (send, receive)
//   block    parent handle / 64 : 34          the owner of the parent
//   record   version:60                       whoever adds a holder or a reference: record ->
//                                             record(new version). Whoever finds none left: record
//                                             -> member(me) or dying(me) (arena/record.hpp)
//   named    layers above                     layers above
//   dying    incarnation:42                   that member, which is freeing it (of a span: which
//                                             has claimed it); after its death, its reaper
//   kept     arena/kept_runs.hpp              runs only: free memory that a member keeps; changed
//                                             by that member, its reaper, or any member that is
//                                             short of memory
//   orphan   0                                spans only: no member allocates here; claimed by
//                                             compare-exchange (arena/orphans.hpp)
//
// All functions are pure.
// Design: docs/design/arena.md
#pragma once

#include <cstdint>

namespace shoal::arena {

using Handle = uint64_t;  // byte offset from the arena's start, multiple of 64; 0 = none
// A member's number {life:30 | slot:12}: never 0, never given out twice in a session. A slot counts
// its lives from 1 on. There are 4.4e12 numbers: enough for a thousand joins a
// second in a century.
using Incarnation = uint64_t;
// The low 30 bits of an incarnation, for words that have no room for all of it. A slot repeats them
// after 2^18 lives. Where they are used, the code says why that does no harm. full_number() in
// arena.hpp finds the incarnation.
using ShortNumber = uint32_t;

inline constexpr unsigned kSlotBits = 12;
inline constexpr unsigned kLifeBits = 30;
inline constexpr unsigned kShortBits = 30;
inline constexpr uint32_t kMemberSlots = 1 << kSlotBits;

constexpr uint32_t slot_of(Incarnation incarnation) noexcept {
  return static_cast<uint32_t>(incarnation % kMemberSlots);
}
constexpr uint64_t life_of_slot(Incarnation incarnation) noexcept {
  return incarnation >> kSlotBits;
}
constexpr Incarnation incarnation_of(uint32_t slot, uint64_t life) noexcept {
  return life << kSlotBits | slot;
}
constexpr ShortNumber short_number(Incarnation incarnation) noexcept {
  return static_cast<ShortNumber>(incarnation & ((uint64_t{1} << kShortBits) - 1));
}

enum class OwnerKind : uint64_t {
  free = 0,
  member = 1,
  channel = 2,
  block = 3,
  record = 4,
  named = 5,
  dying = 6,
  orphan = 7,
  kept = 8,
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
constexpr uint64_t owner_record(uint64_t version) noexcept {
  return make_owner(OwnerKind::record, version);
}
constexpr uint64_t owner_named(uint64_t payload) noexcept {
  return make_owner(OwnerKind::named, payload);
}

constexpr OwnerKind owner_kind(uint64_t word) noexcept { return static_cast<OwnerKind>(word & 15); }
constexpr uint64_t owner_payload(uint64_t word) noexcept { return word >> 4; }
constexpr bool is_member(uint64_t word) noexcept { return owner_kind(word) == OwnerKind::member; }
constexpr bool is_channel(uint64_t word) noexcept { return owner_kind(word) == OwnerKind::channel; }
constexpr bool is_block(uint64_t word) noexcept { return owner_kind(word) == OwnerKind::block; }
constexpr bool is_record(uint64_t word) noexcept { return owner_kind(word) == OwnerKind::record; }
constexpr Incarnation owner_incarnation(uint64_t word) noexcept {  // of member and dying
  return word >> 4;
}
constexpr uint32_t owner_channel_id(uint64_t word) noexcept {
  return static_cast<uint32_t>(word >> 4 & 0xFFFFF);
}
constexpr uint64_t owner_channel_position(uint64_t word) noexcept { return word >> 24; }
constexpr Handle owner_parent(uint64_t word) noexcept { return word >> 4 << 6; }

// Words of locks name their owner in bits 0 to 29 and 32 to 43, so that bits 30 and 31 are free for
// marks in the half that sleepers wait on. 0: no owner.
inline constexpr uint64_t kLockOwnerLow = (uint64_t{1} << kShortBits) - 1;
inline constexpr uint64_t kLockOwnerHigh =
    (uint64_t{1} << (kSlotBits + kLifeBits - kShortBits)) - 1;
inline constexpr uint64_t kLockOwner = kLockOwnerHigh << 32 | kLockOwnerLow;
constexpr uint64_t lock_word(Incarnation owner) noexcept {
  return owner >> kShortBits << 32 | (owner & kLockOwnerLow);
}
constexpr Incarnation lock_owner(uint64_t word) noexcept {
  return (word >> 32 & kLockOwnerHigh) << kShortBits | (word & kLockOwnerLow);
}

}  // namespace shoal::arena
