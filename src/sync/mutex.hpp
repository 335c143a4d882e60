// SPDX-License-Identifier: Apache-2.0
//
// Mutex: a lock between members that survives the death of its owner. Any thread of any member may
// call it. lock() sleeps; try_lock() and unlock() never do. Nothing here allocates or throws after
// the first use by a member. The owner is the member, not the thread: like the standard library's
// Lock it may be unlocked by another thread, even by another member.
//
// A thread that finds the lock taken checks whether the owner is alive: a sleeper at each tick; a
// call that is about to return without the lock (try_lock, or lock at its deadline) at most once in
// Holds::kLookMs. So the lock of a dead owner can be taken even if no member reaps the owner.
//
// MutexState, one per lock, in any block (64-byte aligned; a free lock is all zero except the
// magic):
//   word    63 HANDOFF   43..32 and 29..0 incarnation of the owner, 0 = free   31 DIED   30 WAITERS
//           HANDOFF: a member has unlocked what another member had locked. From then on the death
//           of an owner does not free the lock: nobody can tell whether the dead member or another
//           one was to unlock it. It is set together with that release and never goes away.
//   deaths  how often the lock was taken back from a dead owner
// Invariants:
// 1. DIED is set only while the owner is 0. The next member to take the lock clears it, and is
//    told (owner_died).
// 2. A thread that sleeps on `word` (on its low half, arena/owner.hpp) has seen WAITERS set in it.
// A waiter that takes the lock after
//    having slept sets WAITERS, since others may still sleep; so at most one wake-up too many is
//    given.
// 3. A member publishes the lock in its held words before it tries to take it, and clears the held
//    word after it has woken the next waiter (or has given up). So a reaper finds every lock that
//    the dead member owned, and wakes one sleeper of every lock that it was taking or releasing.
//
// Transitions of word, each one compare-exchange or exchange:
//   lock    free -> me     free|DIED -> me (owner_died)            x -> x|WAITERS, then sleep
//           (each keeps HANDOFF if it is set)
//   unlock  me[|WAITERS] -> 0, then wake one if WAITERS
//           other[|WAITERS] -> HANDOFF, then wake one if WAITERS
//   dead    dead[|WAITERS] -> DIED[|WAITERS] unless HANDOFF, then always wake one: by a reaper, or
//           by a member that has found the lock taken and its owner dead
// No wake-up is lost: sync/wait.hpp, with P1 and P2 in one exchange.
// Design: docs/design/sync.md
#pragma once

#include <cstddef>
#include <cstdint>

#include "arena/arena.hpp"
#include "os/atomic.hpp"
#include "sync/holds.hpp"
#include "sync/wait.hpp"

namespace shoal::sync {

enum class [[nodiscard]] Locked {
  ok,
  owner_died,  // locked; the previous owner died: the data that it protects may be half changed
  busy,        // try_lock only
  timed_out,
  interrupted,  // by a signal; not locked
};
inline constexpr bool is_locked(Locked result) noexcept {
  return result == Locked::ok || result == Locked::owner_died;
}

enum class Unlocked {
  ok,
  handed_off,  // unlocked; another member had locked it
  not_locked,  // nothing was changed
};

struct alignas(64) MutexState {
  os::Atomic<uint64_t> word;
  os::Atomic<uint32_t> deaths;
  uint32_t magic;
  // For RecursiveMutex only, written by the owner:
  os::Atomic<uint64_t> thread;  // incarnation << 22 | thread id
  os::Atomic<uint32_t> depth;
  os::Atomic<uint32_t> locks;     // how often it was locked, modulo 2^32: a change tells a reader
                                  // without the lock that the lock was taken during the read
  os::Atomic<uint32_t> dead_pid;  // the process that the lock was last taken back from
  uint32_t padding[3];
  uint64_t record[2];  // of the shared block, if the mutex is one (arena/record.hpp)
};
static_assert(sizeof(MutexState) == 64 && offsetof(MutexState, thread) == 16);

class Mutex {
 public:
  static constexpr uint32_t kMagic = 0x7478756d;  // "muxt"

  // Makes the state at `handle`, which must lie in a block of the caller.
  static void create(arena::Arena& arena, arena::Handle handle) noexcept;
  // Throws CorruptArena if there is no mutex at `handle`.
  Mutex(arena::Arena& arena, arena::Handle handle);
  // Skips the checks: the caller holds the block and has checked it before.
  Mutex(arena::Arena& arena, MutexState& known) noexcept
      : arena_(&arena),
        state_(&known),
        handle_(static_cast<arena::Handle>(reinterpret_cast<std::byte*>(&known) - arena.base())) {}

  Locked try_lock(arena::Member& member);
  Locked lock(arena::Member& member, int64_t deadline_ns = kForever);
  Unlocked unlock(arena::Member& member);

  [[nodiscard]] arena::Incarnation owner() const noexcept;  // 0: free; a hint for non-owners
  [[nodiscard]] bool handed_off() const noexcept;
  [[nodiscard]] uint32_t deaths() const noexcept { return state_->deaths.load(); }
  [[nodiscard]] arena::Handle handle() const noexcept { return handle_; }
  MutexState& state() const noexcept { return *state_; }

  // The hook for HeldKind::mutex.
  static void reap(arena::Arena& arena, arena::Member& reaper, arena::Incarnation dead,
                   arena::Handle handle);

 private:
  static constexpr uint64_t kWaiters = uint64_t{1} << 30;
  static constexpr uint64_t kDied = uint64_t{1} << 31;
  static constexpr uint64_t kHandoff = uint64_t{1} << 63;

  static Locked take(MutexState& state, arena::Incarnation me, uint64_t also) noexcept;
  Locked sleep_and_take(arena::Member& member, Holds& holds, int64_t deadline_ns);
  Locked take_if_owner_died(Holds& holds, uint64_t also) noexcept;
  static void take_from_dead(arena::Arena& arena, MutexState& state,
                             arena::Incarnation dead) noexcept;
  Unlocked hand_off(arena::Member& member, Holds& holds);
  void wake_next(uint64_t word) noexcept;
  Locked settle(Holds& holds, int held, Locked result) noexcept;
  static bool is_handed_off(arena::Arena& arena, arena::Handle handle);

  arena::Arena* arena_;
  MutexState* state_;
  arena::Handle handle_;
};

}  // namespace shoal::sync
