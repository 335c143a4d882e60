// SPDX-License-Identifier: Apache-2.0
//
// What this member holds, waits for, or is about to wake: the `held` words of its lanes (and
// `wake`, for operations that have claimed a lane). Every operation that would need repair if this
// process died says so here first. Any thread; never blocks, allocates only in of(), never throws
// after of().
//
// A held word (written only by its member, read by reapers):
//   63..6 handle of a sync object (64-byte aligned) >> 6     5..0 HeldKind; 0 = nothing
// The reaper of a dead member calls, for each of its held words, the hook of that kind: it frees a
// lock whose owner is the dead, and in any case signals once more, so that neither a wake-up that
// the dead was about to give nor one that it had been given and not used is lost.
//
// The 64 words (16 lanes of 4) are handed out inside the process by `Holds`, not by lane: a thread
// keeps one reserved, so that the fast path is plain stores. Each word has a mode, local to the
// process:   bit 0 USED     bit 1 CACHED (reserved by a thread)     bit 2 OWNED (a lock we have)
// Invariants:
// 1. A word is not 0 only while its mode has USED.
// 2. Only the thread that has a word cached turns CACHED into CACHED|USED; whoever releases the
//    object drops USED and OWNED (another thread of the process may unlock).
// 3. A held word is written before the store that it protects and cleared after the last wake.
//
// When all words are taken, waiters wake up now and then instead (the ticks of sync/wait.hpp), and
// find dead owners themselves.
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
  ring_items = 4,  // sleeps until a ring has items, or is about to wake one that does
  ring_space = 5,  // the same for free space
  barrier = 6,     // waits in it, runs its action, or is opening it
};
inline constexpr uint64_t kHeldKindMask = 63;

// Called with the arena, a living member that reaps, the dead one, and the handle.
using HeldHook = void (*)(arena::Arena&, arena::Member& reaper, arena::Incarnation dead,
                          arena::Handle object);
void register_held_hook(HeldKind kind, HeldHook hook) noexcept;

// Makes reapers of this process call the hooks of this layer. Cheap; call it before any use.
void register_reap_hooks() noexcept;

class Holds {
 public:
  static constexpr int kNone = -1;
  static constexpr int kWords = 64;
  static constexpr int kReserve = 8;  // words that only operations which never sleep may take

  // The one of this member. Finds it in a few ns, makes it at the first call. Throws NotAMember.
  static Holds& of(arena::Member& member);

  // Publishes the word; kNone when no word is free. `brief`: will be cleared without sleeping.
  int publish(arena::Handle object, HeldKind kind, bool brief = false) noexcept;
  // As publish for a brief use, but waits for a word: some thread is about to clear one.
  int publish_surely(arena::Handle object, HeldKind kind) noexcept;
  void clear(int word) noexcept;  // kNone is allowed

  void set_owned(int word) noexcept;
  // The word under which this member owns the lock, or kNone.
  int find_owned(arena::Handle object) noexcept;
  // Frees words of locks that others have released since (see HANDOFF in sync/mutex.hpp).
  void drop_stale(bool (*is_mine)(arena::Arena&, arena::Handle, arena::Incarnation)) noexcept;

  [[nodiscard]] arena::Incarnation incarnation() const noexcept { return incarnation_; }
  [[nodiscard]] int used_for_test() const noexcept;

 private:
  friend struct ThreadCache;
  explicit Holds(arena::Member& member);
  int take(bool brief) noexcept;
  os::Atomic<uint64_t>& held(int word) noexcept;

  arena::Member* member_;
  arena::Incarnation incarnation_;
  arena::Lane* lanes_;
  Holds* next_ = nullptr;  // all of this process; never freed, so thread caches stay valid
  os::Atomic<uint32_t> mode_[kWords];
};

}  // namespace shoal::sync
