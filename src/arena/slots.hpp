// SPDX-License-Identifier: Apache-2.0
//
// The member table: which processes are members, and which of them are alive. Internal to
// src/arena; member.hpp has the public part, layout.hpp the life of a slot. One state word names
// incarnation, pid and the low bits of the start time, so a process that dies right after claiming
// a slot can be told from a live one.
//
// 1. A slot is declared dead by a compare-exchange that expects the state word whose process was
//    found dead. If the word has changed since then, nothing happens.
// 2. A process that may write to a slot keeps the slot while it is alive (a forked child: while its
//    birth lock is held). It stores nothing there before the compare-exchange that gives it the
//    slot has succeeded. So no process writes to a slot that has moved on to a later life.
// Design: docs/design/arena.md
#pragma once

#include "arena/arena.hpp"

namespace shoal::arena {

// The state word has nine bits of the start time: 0 if the start time is not known.
constexpr uint64_t start_bits(uint64_t start) noexcept { return start == 0 ? 0 : 1 + start % 511; }

constexpr uint64_t make_slot(SlotState state, Incarnation incarnation, uint64_t pid,
                             uint64_t start) noexcept {
  return life_of_slot(incarnation) << 34 | (pid & 0x3FFFFF) << 12 | start_bits(start) << 3 |
         static_cast<uint64_t>(state);
}
constexpr SlotState slot_state(uint64_t word) noexcept { return static_cast<SlotState>(word & 7); }
constexpr uint64_t slot_life(uint64_t word) noexcept { return word >> 34; }
constexpr int slot_pid(uint64_t word) noexcept { return static_cast<int>(word >> 12 & 0x3FFFFF); }
constexpr uint64_t slot_start_bits(uint64_t word) noexcept { return word >> 3 & 511; }
constexpr uint64_t with_state(uint64_t word, SlotState state) noexcept {
  return (word & ~uint64_t{7}) | static_cast<uint64_t>(state);
}
constexpr bool is_listed(SlotState state) noexcept {
  return state == SlotState::born || state == SlotState::live || state == SlotState::leaving;
}

enum class NoSlot {
  members,       // all slots are taken
  incarnations,  // the free slots have used up their incarnation numbers
  memory,        // there is no memory for one more slot
};

// A slot and its state word as it was read: the word alone does not say which member it names.
struct SeenSlot {
  uint32_t index = 0;
  uint64_t word = 0;
  [[nodiscard]] SlotState state() const noexcept { return slot_state(word); }
  [[nodiscard]] Incarnation incarnation() const noexcept {
    return incarnation_of(index, slot_life(word));
  }
};
SeenSlot see_slot(const Arena& arena, uint32_t index) noexcept;

// Claims the lowest free slot for this process, in state born. Throws TooManyMembers,
// MemoryExhausted. `parent`: for a slot that is prepared for a child of this process's fork, the
// forking member, which then calls open_birth(); else 0.
Incarnation claim_slot(Arena& arena, MemberKind kind, Incarnation parent);
// The same without throwing; 0: no slot, `*why` says why.
Incarnation try_claim_slot(Arena& arena, MemberKind kind, Incarnation parent,
                           NoSlot* why = nullptr) noexcept;
// born -> live as process `pid`; false: the slot was declared dead, and may have another owner.
bool enliven_slot(Arena& arena, Incarnation incarnation, int pid, uint64_t start) noexcept;
// Takes the birth lock of the child that a slot was claimed for. Returns a descriptor, which the
// parent closes after the fork and the child once it is live. -1: no lock is possible. Callable in
// fork handlers.
int lock_birth(const Arena& arena, Incarnation child) noexcept;
// The last step of preparing a slot. From then on the birth lock, or a time limit if there is no
// birth lock, tells whether the child may still become live.
void open_birth(Arena& arena, Incarnation child, bool locked) noexcept;
// Called by the parent after its fork, when it has closed its descriptor of the birth lock.
// Declares the slot dead if it is certain that there is no child. True: the slot is dead.
bool end_failed_birth(Arena& arena, Incarnation child) noexcept;
// Sets this process's own slot to `state` if the slot still belongs to this incarnation and is
// listed. True: the slot is in `state`.
bool advance_slot(Arena& arena, Incarnation incarnation, SlotState state) noexcept;
// May the process that a listed slot belongs to, or the forked child that the slot is prepared for,
// still run? Reads /proc.
bool process_behind_lives(Arena& arena, SeenSlot seen) noexcept;
// Needs: process_behind_lives(seen) has returned false. True: the slot is dead. False: a forked
// child has become live in the meantime, or the slot is free or in a later life.
bool declare_dead(Arena& arena, SeenSlot seen) noexcept;
// Clears what identifies the dead process, then sets the slot free. Only for the slot's reaper.
void set_slot_free(Arena& arena, SeenSlot seen) noexcept;
// Number of slots that have ever been used; scans need not look further.
uint32_t slots_in_use(const Arena& arena) noexcept;

}  // namespace shoal::arena
