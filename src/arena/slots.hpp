// SPDX-License-Identifier: Apache-2.0
//
// The member table: which processes are members, and which of them are alive. Internal to
// src/arena; member.hpp has the public part. One state word names incarnation, pid and the low bits
// of the start time, so a process that dies right after claiming a slot can be told from a live
// one.
// Design: docs/design/arena.md
#pragma once

#include "arena/arena.hpp"

namespace shoal::arena {

// mask of the low bits of the start time that the state word holds
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

// Claims a slot for this process in state born and clears what its last user left; prefers slots
// that have a bit in shared blocks. Throws TooManyMembers. `parent`: for a slot that is prepared
// for a child of this process's fork, the forking member; else 0.
Incarnation claim_slot(Arena& arena, MemberKind kind, Incarnation bond, Incarnation parent);
// The same without throwing; 0: no slot.
Incarnation try_claim_slot(Arena& arena, MemberKind kind, Incarnation bond,
                           Incarnation parent) noexcept;
// born -> live as process `pid`; false: a reaper has declared the slot dead.
bool enliven_slot(Arena& arena, Incarnation incarnation, int pid, uint64_t start) noexcept;
// Takes the birth lock of the child that a slot was claimed for. Returns a descriptor, which the
// parent closes after the fork and the child once it is live. -1: no lock is possible; then the
// child must become live before its parent is found dead, and within kLateChildNs. Callable in fork
// handlers.
int lock_birth(const Arena& arena, Incarnation child) noexcept;
// Was this slot prepared for a fork's child that is not live yet?
bool is_unborn(const Arena& arena, uint64_t word) noexcept;
// Does this slot have a birth lock, which tells whether the child may still become live? Without
// one, elapsed time decides.
bool has_birth_lock(const Arena& arena, uint64_t word) noexcept;
// born -> dead for such a slot, if its state still is `word` and its birth lock, if it has one, is
// known to be free. False: the child may still become live, or is live.
bool bury_unborn(Arena& arena, uint64_t word) noexcept;
// Sets the slot to `state` if it still belongs to this incarnation and is listed. True: it is in
// `state`.
bool advance_slot(Arena& arena, Incarnation incarnation, SlotState state) noexcept;
// Is the process of a listed slot alive? Reads /proc.
bool process_behind_lives(Arena& arena, uint64_t word) noexcept;
// Is there a free slot that has a bit in shared blocks?
bool sharer_slot_is_free(const Arena& arena) noexcept;
// Number of slots that have ever been used; scans need not look further.
uint32_t slots_in_use(const Arena& arena) noexcept;

}  // namespace shoal::arena
