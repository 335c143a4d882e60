// SPDX-License-Identifier: Apache-2.0
//
// Holds: what this member holds, waits for, or is about to wake, in the `held` words of its lanes
// (and in `wake`, for operations that have claimed a lane). An operation that would need repair if
// this process died writes a held word first. Any thread may call it. Nothing here waits; only of()
// allocates or throws.
//
// A held word (written only by its member, read by reapers):
//   63..6 handle of a sync object (64-byte aligned) >> 6     5..0 HeldKind; the word 0 = unused
// The reaper of a dead member calls the hook of its kind for each held word. The hook frees a lock
// whose owner is the dead member, and in any case wakes once more. So no wake-up is lost: neither
// one that the dead member was about to give, nor one that it had received and not used.
//
// `Holds` hands out the 64 words (16 lanes of 4) within the process, without claiming lanes. Each
// thread keeps one reserved, so that the fast path is plain stores. Each word has a mode, local to
// the process:   bit 0 USED   bit 1 CACHED (reserved by a thread)   bit 2 OWNED (a lock we have)
// Invariants:
// 1. A word is nonzero only while its mode has USED.
// 2. Only the thread that has a word cached changes CACHED to CACHED|USED. The thread that releases
//    the object clears USED and OWNED (it may be another thread of the process).
// 3. A held word is written before the store that it protects and cleared after the last wake.
//
// When no word is free, an operation runs without one. If this process then dies in the operation,
// not the reaper repairs what is left, but the waiters do, at their next tick (sync/wait.hpp). No
// operation waits for a word: the threads that use the words may be stopped, or a waiting thread
// with a real-time priority may keep them from running.
// Design: docs/design/sync.md
#pragma once

#include <cstdint>

#include "arena/arena.hpp"
#include "os/atomic.hpp"

namespace shoal::sync {

enum class HeldKind : uint64_t {
  mutex = 0,  // may own it, wait for it, or be waking its next owner
  semaphore = 1,
  event = 2,
  condition = 3,
  ring_items = 4,  // sleeps until a ring has items, or is about to wake such a sleeper
  ring_space = 5,  // the same for free space
  barrier = 6,     // waits in it, runs its action, or is opening it
};
inline constexpr uint64_t kHeldKindMask = 63;

// Called for each held word of this kind of the dead member.
using HeldHook = void (*)(arena::Arena&, arena::Member& reaper, arena::Incarnation dead,
                          arena::Handle object);
void register_held_hook(HeldKind kind, HeldHook hook) noexcept;

// Makes reapers of this process call the hooks of this layer. Cheap; call it before any use.
void register_reap_hooks() noexcept;

// arena::reap() for a waiter that has already repaired the object that it waits for. If memory is
// exhausted it does nothing: another member will reap.
void reap_quietly(arena::Arena& arena, arena::Member& reaper, arena::Incarnation dead) noexcept;

class Holds {
 public:
  static constexpr int kNone = -1;
  static constexpr int kWords = 64;
  static constexpr int kReserve = 8;  // words that only operations that never sleep may take, so
                                      // that these rarely go without
  static constexpr uint32_t kLookMs = 10;

  // The Holds of this member: made by the first call, found in a few ns later. Throws NotAMember.
  static Holds& of(arena::Member& member);

  // Writes a free word and returns its number; kNone when no word is free. `brief`: the caller
  // clears it without sleeping in between.
  int publish(arena::Handle object, HeldKind kind, bool brief = false) noexcept;
  void clear(int word) noexcept;  // kNone is allowed

  void set_owned(int word) noexcept;
  // The word that names this lock as owned by this member, or kNone.
  int find_owned(arena::Handle object) noexcept;
  // Clears the words of owned locks for which they are of no use any more: is_stale(). True once,
  // it must stay true.
  void drop_stale(bool (*is_stale)(arena::Arena&, arena::Handle)) noexcept;

  // Is this member dead? For callers that may ask often, such as a loop of try_lock(). A member
  // that no longer has its slot is dead; this costs no system call. For a member that has its slot,
  // this reads /proc, but at most once in kLookMs: in between, a member that was alive at the last
  // check counts as alive.
  bool seems_dead(arena::Incarnation other) noexcept;

  [[nodiscard]] arena::Incarnation incarnation() const noexcept { return incarnation_; }
  [[nodiscard]] int used_for_test() const noexcept;
  // how often seems_dead() has read /proc
  [[nodiscard]] uint32_t looks_for_test() const noexcept { return looks_.load(); }

 private:
  friend struct ThreadCache;
  static constexpr uint32_t kLooks = 64;
  explicit Holds(arena::Member& member);
  int take(bool brief) noexcept;
  os::Atomic<uint64_t>& held(int word) noexcept;

  arena::Member* member_;
  arena::Incarnation incarnation_;
  arena::Lane* lanes_;
  Holds* next_ = nullptr;  // list of all Holds of this process; never freed, so thread caches stay
                           // valid
  os::Atomic<uint32_t> mode_[kWords];
  // The last checks of other members, each in the entry that the low bits of its incarnation
  // select: 63..32 short number, 31..0 time of the check in ms
  os::Atomic<uint64_t> last_look_[kLooks];
  os::Atomic<uint32_t> looks_;
};

}  // namespace shoal::sync
