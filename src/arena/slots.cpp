// SPDX-License-Identifier: Apache-2.0
#include "arena/slots.hpp"

#include <algorithm>
#include <cerrno>
#include <new>

#include "os/clock.hpp"
#include "os/error.hpp"
#include "os/memory.hpp"
#include "os/process.hpp"
#include "testing/kill_point.hpp"

namespace shoal::arena {

namespace {

constexpr Incarnation kLastIncarnation = (Incarnation{1} << 30) - 1;

uint64_t slot_handle(uint32_t index) noexcept {
  return kSlotsOffset + uint64_t{index} * sizeof(MemberSlot);
}

bool slot_is_free(const Arena& arena, uint64_t incarnation) noexcept {
  return slot_state(arena.slot(slot_of(static_cast<Incarnation>(incarnation))).state.load()) ==
         SlotState::free;
}

// The next incarnation after `last` whose slot is free; of these the first whose slot is below
// kSharerSlots, if there is one. 0: none.
uint64_t next_incarnation(const Arena& arena, uint64_t last) noexcept {
  uint64_t any = 0;
  for (uint64_t n = last + 1; n <= last + kMemberSlots; ++n) {
    const bool holder = slot_of(static_cast<Incarnation>(n)) < kSharerSlots;
    if ((!holder && any != 0) || !slot_is_free(arena, n)) continue;
    if (holder) return n;
    any = n;
  }
  return any;
}

// Clears what the slot's last user left. Needs: the state is born, so that only the claimer, the
// caller, writes here.
void clear_slot(MemberSlot& slot) noexcept {
  slot.start_time.store(0);
  slot.image.store(0);
  slot.reaper.store(0);
  slot.parent.store(0);
  slot.birth.store(0);
  for (os::Atomic<uint32_t>& word : slot.user) word.store(0);
  for (Lane& lane : slot.lanes) {
    lane.intent.store(0);
    lane.intent_argument.store(0);
    for (os::Atomic<uint64_t>& held : lane.held) held.store(0);
    lane.wake.store(0);
  }
  auto* trace = reinterpret_cast<os::Atomic<uint64_t>*>(slot.trace);
  for (size_t i = 0; i < sizeof slot.trace / 8; ++i)
    trace[i].store(0, os::relaxed);  // order: relaxed; not live yet
}

}  // namespace

uint32_t slots_in_use(const Arena& arena) noexcept {
  const uint64_t last = arena.header().last_incarnation.load();
  return static_cast<uint32_t>(std::min<uint64_t>(last + 1, kMemberSlots));
}

bool sharer_slot_is_free(const Arena& arena) noexcept {
  for (uint32_t i = 0; i < kSharerSlots; ++i)
    if (slot_state(arena.slot(i).state.load()) == SlotState::free) return true;
  return false;
}

Incarnation try_claim_slot(Arena& arena, MemberKind kind, Incarnation bond,
                           Incarnation parent) noexcept {
  const auto pid = static_cast<uint64_t>(os::own_pid());
  const uint64_t start = os::start_time(static_cast<int>(pid));
  os::Atomic<uint64_t>& counter = arena.header().last_incarnation;
  while (true) {
    uint64_t last = counter.load();
    const uint64_t number = next_incarnation(arena, last);
    if (number == 0 || number > kLastIncarnation) return 0;
    const auto me = static_cast<Incarnation>(number);
    if (!arena.commit(slot_handle(slot_of(me)), sizeof(MemberSlot))) return 0;
    // COMMIT(arena.join.number): killed before: nothing; after: one incarnation is never used
    if (!counter.compare_exchange(last, number)) continue;
    SHOAL_KILL_POINT("arena.join.number");
    MemberSlot& slot = arena.slot(slot_of(me));
    uint64_t word = slot.state.load();
    if (slot_state(word) != SlotState::free) continue;
    // COMMIT(arena.join.claim): killed before: free; after: born, reaped once the process is dead
    if (!slot.state.compare_exchange(word, make_slot(SlotState::born, me, pid, start))) continue;
    SHOAL_KILL_POINT("arena.join.claim");
    clear_slot(slot);
    slot.born_ns.store(static_cast<uint64_t>(os::monotonic_ns()));
    slot.kind.store(static_cast<uint32_t>(kind));
    slot.bond.store(bond);
    slot.parent.store(parent);
    return me;
  }
}

Incarnation claim_slot(Arena& arena, MemberKind kind, Incarnation bond, Incarnation parent) {
  const Incarnation me = try_claim_slot(arena, kind, bond, parent);
  if (me == 0)
    throw TooManyMembers("shoal: the session has no free place for another process (at most " +
                         std::to_string(kMemberSlots) + " at a time)");
  return me;
}

bool enliven_slot(Arena& arena, Incarnation incarnation, int pid, uint64_t start) noexcept {
  MemberSlot& slot = arena.slot(slot_of(incarnation));
  uint64_t word = slot.state.load();
  if (slot_incarnation(word) != incarnation || slot_state(word) != SlotState::born) return false;
  slot.start_time.store(start);  // of a born slot, reapers read the state word only
  slot.image.store(os::process_image(pid));
  const uint64_t live = make_slot(SlotState::live, incarnation, static_cast<uint64_t>(pid), start);
  // COMMIT(arena.join.live): killed before: born, and reaped; after: a member, and reaped
  const bool done = slot.state.compare_exchange(word, live);
  SHOAL_KILL_POINT("arena.join.live");
  return done;
}

int lock_birth(const Arena& arena, Incarnation child) noexcept {
  const int file = arena.fd();
  const int lock = file < 0 ? -1 : os::lock_byte(file, slot_handle(slot_of(child)));
  if (lock < 0) return -1;
  // COMMIT(arena.fork.birth): killed before: there is no child, and its slot is reaped with this
  // member; after: the same, since this process's death has released the lock.
  arena.slot(slot_of(child)).birth.store(1);
  SHOAL_KILL_POINT("arena.fork.birth");
  return lock;
}

bool is_unborn(const Arena& arena, uint64_t word) noexcept {
  return slot_state(word) == SlotState::born &&
         arena.slot(slot_of(slot_incarnation(word))).parent.load() != 0;
}

bool has_birth_lock(const Arena& arena, uint64_t word) noexcept {
  return arena.slot(slot_of(slot_incarnation(word))).birth.load() != 0;
}

bool bury_unborn(Arena& arena, uint64_t word) noexcept {
  const uint32_t slot = slot_of(slot_incarnation(word));
  if (!is_unborn(arena, word)) return false;
  if (has_birth_lock(arena, word) && !os::byte_is_free(arena.fd(), slot_handle(slot))) return false;
  // COMMIT(arena.slot.bury): killed before: born, the next reaper does it; after: dead. If the
  // child has become live and then released its lock, the word has changed and the exchange fails.
  const bool done =
      arena.slot(slot).state.compare_exchange(word, with_state(word, SlotState::dead));
  SHOAL_KILL_POINT("arena.slot.bury");
  return done;
}

bool advance_slot(Arena& arena, Incarnation incarnation, SlotState state) noexcept {
  MemberSlot& slot = arena.slot(slot_of(incarnation));
  uint64_t word = slot.state.load();
  while (slot_incarnation(word) == incarnation && is_listed(slot_state(word))) {
    // COMMIT(arena.slot.advance): killed before: unchanged, another reaper does it; after: leaving
    // or dead
    const bool done = slot.state.compare_exchange(word, with_state(word, state));
    SHOAL_KILL_POINT("arena.slot.advance");
    if (done) return true;
  }
  return slot_incarnation(word) == incarnation && slot_state(word) == state;
}

bool process_behind_lives(Arena& arena, uint64_t word) noexcept {
  const int pid = slot_pid(word);
  const MemberSlot& slot = arena.slot(slot_of(slot_incarnation(word)));
  if (slot_state(word) != SlotState::born)
    return os::process_life(pid, slot.start_time.load(), slot.image.load()) != os::Life::dead;
  const uint64_t start = os::start_time(pid);
  if (start != 0 && (start & kStartBits) != slot_start(word)) return false;
  return os::process_life(pid, start) != os::Life::dead;
}

bool member_listed(Arena& arena, Incarnation incarnation) noexcept {
  if (incarnation == 0) return false;
  const uint64_t word = arena.slot(slot_of(incarnation)).state.load();
  return slot_incarnation(word) == incarnation && is_listed(slot_state(word));
}

bool member_alive(Arena& arena, Incarnation incarnation) noexcept {
  if (incarnation == 0) return false;
  const uint64_t word = arena.slot(slot_of(incarnation)).state.load();
  if (slot_incarnation(word) != incarnation || !is_listed(slot_state(word))) return false;
  return process_behind_lives(arena, word);
}

int member_pid(Arena& arena, Incarnation incarnation) noexcept {
  const uint64_t word = arena.slot(slot_of(incarnation)).state.load();
  return slot_incarnation(word) == incarnation && slot_state(word) != SlotState::free
             ? slot_pid(word)
             : 0;
}

}  // namespace shoal::arena
