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

constexpr uint64_t kLastLife = (uint64_t{1} << kLifeBits) - 1;
// a forked child without a birth lock counts as dead if it is not live after this time
constexpr uint64_t kLateChildNs = 30'000'000'000;

uint64_t slot_handle(uint32_t index) noexcept {
  return kSlotsOffset + uint64_t{index} * sizeof(MemberSlot);
}

struct Place {
  bool found = false;
  SeenSlot seen;      // a free slot
  uint64_t life = 0;  // the life that the claimer begins
};

// Returns the lowest free slot that has a life left, so that scans visit few slots and records stay
// small. Sets `*worn_out` if a free slot has no life left.
Place find_place(const Arena& arena, bool* worn_out) noexcept {
  const uint32_t used = slots_in_use(arena);
  for (uint32_t i = 0; i < kMemberSlots && i <= used; ++i) {
    const SeenSlot seen = i < used ? see_slot(arena, i) : SeenSlot{i, 0};  // `used`: maybe a hole
    if (seen.state() != SlotState::free) continue;
    const uint64_t life = slot_life(seen.word) + 1;
    if (life <= kLastLife) return {true, seen, life};
    *worn_out = true;
  }
  return {};
}

// Makes scans include this slot. Needs: the slot has memory.
void reach_slot(Arena& arena, uint32_t index) noexcept {
  os::Atomic<uint64_t>& reached = arena.header().slots_used;
  uint64_t used = reached.load();
  while (used <= index) {
    // COMMIT(arena.join.reach): killed before: nothing; after: scans visit one more free slot
    const bool done = reached.compare_exchange(used, index + 1);
    SHOAL_KILL_POINT("arena.join.reach");
    if (done) return;
  }
}

// Clears what the slot's last user left. Needs: the state is born, and this process is the claimer.
void clear_slot(MemberSlot& slot) noexcept {
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
  const uint64_t used = arena.header().slots_used.load();
  return static_cast<uint32_t>(std::min<uint64_t>(used, kMemberSlots));
}

SeenSlot see_slot(const Arena& arena, uint32_t index) noexcept {
  return {index, arena.slot(index).state.load()};
}

Incarnation try_claim_slot(Arena& arena, MemberKind kind, Incarnation parent,
                           NoSlot* why) noexcept {
  const auto pid = static_cast<uint64_t>(os::own_pid());
  const uint64_t start = os::start_time(static_cast<int>(pid));
  const auto refuse = [why](NoSlot reason) {
    if (why != nullptr) *why = reason;
    return Incarnation{0};
  };
  while (true) {
    bool worn_out = false;
    const Place place = find_place(arena, &worn_out);
    const uint32_t index = place.seen.index;
    if (!place.found) return refuse(worn_out ? NoSlot::incarnations : NoSlot::members);
    if (!arena.commit(slot_handle(index), sizeof(MemberSlot))) return refuse(NoSlot::memory);
    reach_slot(arena, index);
    const Incarnation me = incarnation_of(index, place.life);
    MemberSlot& slot = arena.slot(index);
    uint64_t word = place.seen.word;
    // COMMIT(arena.join.claim): killed before: free; after: born, reaped once the process is dead
    if (!slot.state.compare_exchange(word, make_slot(SlotState::born, me, pid, start))) continue;
    SHOAL_KILL_POINT("arena.join.claim");
    clear_slot(slot);
    slot.kind.store(static_cast<uint64_t>(kind));
    slot.parent.store(parent);
    return me;
  }
}

Incarnation claim_slot(Arena& arena, MemberKind kind, Incarnation parent) {
  NoSlot why{};
  const Incarnation me = try_claim_slot(arena, kind, parent, &why);
  if (me != 0) return me;
  switch (why) {
    case NoSlot::memory:
      throw MemoryExhausted(
          "shoal: no shared memory for the record of another process of the session, " +
          std::to_string(sizeof(MemberSlot)) + " bytes");
    case NoSlot::incarnations:
      throw TooManyMembers(
          "shoal: no process can join this session any more: it has given out all its member "
          "numbers (2^42). Start a new session");
    case NoSlot::members:
      break;
  }
  throw TooManyMembers("shoal: the session has no free place for another process (at most " +
                       std::to_string(kMemberSlots) + " at a time)");
}

// A forked child that comes late, whose slot may have another owner by now, has stored nothing if
// this exchange fails. If it succeeds, the slot belongs to this process as long as the process is
// alive.
bool enliven_slot(Arena& arena, Incarnation incarnation, int pid, uint64_t start) noexcept {
  MemberSlot& slot = arena.slot(slot_of(incarnation));
  uint64_t word = slot.state.load();
  if (slot_life(word) != life_of_slot(incarnation) || slot_state(word) != SlotState::born)
    return false;
  const uint64_t live = make_slot(SlotState::live, incarnation, static_cast<uint64_t>(pid), start);
  // COMMIT(arena.join.live): killed before: born, and reaped; after: a member, and reaped. Until
  // start_time is stored, the state word's pid and start bits tell whether it lives.
  if (!slot.state.compare_exchange(word, live)) return false;
  SHOAL_KILL_POINT("arena.join.live");
  slot.image.store(os::process_image(pid));
  slot.start_time.store(start);
  return true;
}

int lock_birth(const Arena& arena, Incarnation child) noexcept {
  const int file = arena.fd();
  return file < 0 ? -1 : os::lock_byte(file, slot_handle(slot_of(child)));
}

void open_birth(Arena& arena, Incarnation child, bool locked) noexcept {
  const uint64_t late = static_cast<uint64_t>(os::monotonic_ns()) + kLateChildNs;
  // COMMIT(arena.fork.birth): killed before: there is no child, and its slot is reaped since this
  // process is dead; after: it is reaped as soon as its birth lock is free, which this death
  // causes, or its time limit has passed
  arena.slot(slot_of(child)).birth.store(locked ? kBirthLocked : late);
  SHOAL_KILL_POINT("arena.fork.birth");
}

bool declare_dead(Arena& arena, SeenSlot seen) noexcept {
  os::Atomic<uint64_t>& state = arena.slot(seen.index).state;
  const uint64_t dead = with_state(seen.word, SlotState::dead);
  uint64_t word = seen.word;
  // COMMIT(arena.slot.dead): killed before: unchanged, the next reaper does it; after: dead
  const bool done = state.compare_exchange(word, dead);
  SHOAL_KILL_POINT("arena.slot.dead");
  return done || word == dead;
}

bool end_failed_birth(Arena& arena, Incarnation child) noexcept {
  const uint32_t index = slot_of(child);
  const SeenSlot seen = see_slot(arena, index);
  if (seen.incarnation() != child || seen.state() != SlotState::born) return false;
  const bool none = arena.slot(index).birth.load() == kBirthLocked
                        ? os::byte_is_free(arena.fd(), slot_handle(index))
                        : os::has_no_child();
  return none && declare_dead(arena, seen);
}

bool advance_slot(Arena& arena, Incarnation incarnation, SlotState state) noexcept {
  MemberSlot& slot = arena.slot(slot_of(incarnation));
  uint64_t word = slot.state.load();
  const uint64_t life = life_of_slot(incarnation);
  while (slot_life(word) == life && is_listed(slot_state(word))) {
    // COMMIT(arena.slot.advance): killed before: unchanged, a reaper declares it dead; after:
    // leaving or dead, and reaped
    const bool done = slot.state.compare_exchange(word, with_state(word, state));
    SHOAL_KILL_POINT("arena.slot.advance");
    if (done) return true;
  }
  return slot_life(word) == life && slot_state(word) == state;
}

// The fields that are read here are zero while the slot is free. If they belong to a later life,
// the life that `seen` names is over: then the answer does not matter, since an exchange that
// expects its word fails.
bool process_behind_lives(Arena& arena, SeenSlot seen) noexcept {
  const uint64_t word = seen.word;
  const MemberSlot& slot = arena.slot(seen.index);
  if (slot_state(word) == SlotState::born) {
    const uint64_t birth = slot.birth.load();
    if (birth == kBirthLocked) return !os::byte_is_free(arena.fd(), slot_handle(seen.index));
    if (birth != 0) return static_cast<uint64_t>(os::monotonic_ns()) <= birth;
  }
  const int pid = slot_pid(word);
  const uint64_t known = slot.start_time.load();
  if (known != 0) return os::process_life(pid, known, slot.image.load()) != os::Life::dead;
  const uint64_t start = os::start_time(pid);  // of the process that has the pid
  if (start != 0 && slot_start_bits(word) != 0 && start_bits(start) != slot_start_bits(word))
    return false;
  return os::process_life(pid, start) != os::Life::dead;
}

void set_slot_free(Arena& arena, SeenSlot seen) noexcept {
  MemberSlot& slot = arena.slot(seen.index);
  slot.start_time.store(0);
  slot.image.store(0);
  slot.parent.store(0);
  slot.birth.store(0);
  // COMMIT(arena.reap.end): killed before: reaped again; after: the slot is free.
  slot.state.compare_exchange(seen.word, make_slot(SlotState::free, seen.incarnation(), 0, 0));
  SHOAL_KILL_POINT("arena.reap.end");
}

bool member_listed(Arena& arena, Incarnation incarnation) noexcept {
  if (incarnation == 0) return false;
  const SeenSlot seen = see_slot(arena, slot_of(incarnation));
  return seen.incarnation() == incarnation && is_listed(seen.state());
}

bool member_alive(Arena& arena, Incarnation incarnation) noexcept {
  if (incarnation == 0) return false;
  const SeenSlot seen = see_slot(arena, slot_of(incarnation));
  if (seen.incarnation() != incarnation || !is_listed(seen.state())) return false;
  return process_behind_lives(arena, seen);
}

int member_pid(Arena& arena, Incarnation incarnation) noexcept {
  const SeenSlot seen = see_slot(arena, slot_of(incarnation));
  return seen.incarnation() == incarnation && seen.state() != SlotState::free ? slot_pid(seen.word)
                                                                              : 0;
}

Incarnation full_number(const Arena& arena, uint64_t low, unsigned bits) noexcept {
  if (low == 0) return 0;
  const auto index = static_cast<uint32_t>(low % kMemberSlots);
  const uint64_t step = uint64_t{1} << (bits - kSlotBits);  // lives with the same low bits
  const uint64_t life = slot_life(see_slot(arena, index).word);
  const uint64_t behind = (life - (low >> kSlotBits)) & (step - 1);
  return behind > life ? 0 : incarnation_of(index, life - behind);
}

}  // namespace shoal::arena
