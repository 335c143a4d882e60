// SPDX-License-Identifier: Apache-2.0
//
// The member table: who is a member, who lives, who is dead. Internal to src/arena; member.hpp has
// the public part. The state word names incarnation, pid and the low bits of the start time at
// once, so a process that dies right after claiming a slot can be told from a live one.
// Design: docs/design/arena.md
#pragma once

#include "arena/arena.hpp"

namespace shoal::arena {

// low bits of the start time that fit into the state word
inline constexpr uint64_t kStartBits = 511;

constexpr uint64_t make_slot(SlotState state, Incarnation incarnation, uint64_t pid,
                             uint64_t start) noexcept {
  return uint64_t{incarnation} << 34 | (pid & 0x3FFFFF) << 12 | (start & kStartBits) << 3 |
         static_cast<uint64_t>(state);
}
constexpr SlotState slot_state(uint64_t word) noexcept { return static_cast<SlotState>(word & 7); }
constexpr Incarnation slot_incarnation(uint64_t word) noexcept {
  return static_cast<Incarnation>(word >> 34);
}
constexpr int slot_pid(uint64_t word) noexcept { return static_cast<int>(word >> 12 & 0x3FFFFF); }
constexpr uint64_t slot_start(uint64_t word) noexcept { return word >> 3 & kStartBits; }
constexpr uint64_t with_state(uint64_t word, SlotState state) noexcept {
  return (word & ~uint64_t{7}) | static_cast<uint64_t>(state);
}
constexpr bool is_listed(SlotState state) noexcept {
  return state == SlotState::born || state == SlotState::live || state == SlotState::leaving;
}

// Claims a slot for this process in state born, everything else in it zero; prefers slots that can
// hold counted blocks. Throws TooManyMembers, OsError. `parent`: set when it is prepared for a
// child of this process's fork.
Incarnation claim_slot(Arena& arena, MemberKind kind, Incarnation bond, Incarnation parent);
// The same without throwing, 0: no slot.
Incarnation try_claim_slot(Arena& arena, MemberKind kind, Incarnation bond,
                           Incarnation parent) noexcept;
// born -> live as process `pid`; false: a reaper declared it dead meanwhile.
bool enliven_slot(Arena& arena, Incarnation incarnation, int pid, uint64_t start) noexcept;
// The birth lock of the child that a slot was claimed for: a descriptor that parent and child close
// when the child is live. -1: none can be had; then the child must appear before its parent is
// found dead, and within kLateChildNs. Callable in fork handlers.
int lock_birth(const Arena& arena, Incarnation child) noexcept;
// Was this slot prepared for a fork's child that nobody has seen yet?
bool is_unborn(const Arena& arena, uint64_t word) noexcept;
// Does its birth lock, not the time, say whether that child may still come?
bool has_birth_lock(const Arena& arena, uint64_t word) noexcept;
// born -> dead for such a slot, if it still is what `word` says and its birth lock, if it has one,
// is known to be free. False: the child may come, or has come.
bool bury_unborn(Arena& arena, uint64_t word) noexcept;
// Moves the slot on if it still is this incarnation's and listed; true: it is in `state` now.
bool advance_slot(Arena& arena, Incarnation incarnation, SlotState state) noexcept;
// Does the process behind a listed slot live? Looks into /proc.
bool process_behind_lives(Arena& arena, uint64_t word) noexcept;
// Is there a free slot with a bit of its own in shared blocks?
bool sharer_slot_is_free(const Arena& arena) noexcept;
// Number of slots that can ever have been used: scans need not look further.
uint32_t slots_in_use(const Arena& arena) noexcept;

}  // namespace shoal::arena
