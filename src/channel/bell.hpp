// SPDX-License-Identifier: Apache-2.0
//
// Bell: a file descriptor that is readable exactly while a channel has messages (or room), for
// select, poll, epoll and asyncio. It is a pipe; a byte in it says "readable". Every process that
// asks for the descriptor, and every process forked from one that has it, shares the same pipe.
//
// BellBoard, in the channel's state:
//   lock      held by the thread that writes into the pipe or reads from it (exception: giving up)
//   pipe      the pipe's identity; 0: no process has asked for a descriptor
//   state     SILENT the pipe is empty; RUNG it has a byte; unknown, look into the pipe: CHANGING,
//             by the lock's holder, or ALONE, by a thread that gave up waiting for the lock
//   again     1: a thread gave up waiting for the lock, so the lock's holder must settle once more
//   keepers   pid:32 | fd:32 of processes that have the pipe open; other processes open it there
// All are written under the lock, except `again`, a keeper's word when that keeper leaves, and what
// a thread writes that gave up waiting for the lock.
//
// "Ready" below is the channel's own question: is there a message (is there room)?
// Invariants, at each moment at which no thread holds the lock:
// 1. state is RUNG if and only if a byte is in the pipe, else SILENT. (A holder that dies in
//    between, or cannot open the pipe, leaves CHANGING; the next holder empties the pipe and starts
//    from there.)
// 2. A sender that made the channel ready loads `state` after that, and takes the lock unless it is
//    RUNG; a receiver that took the last message loads it after that, and takes the lock unless it
//    is SILENT.
// 3. The holder of the lock stores CHANGING first. Then it asks "ready" before it writes a byte, or
//    asks again after it has emptied the pipe and stored SILENT. All of these are seq_cst, so:
//    a. No wake-up is lost. A sender that finds RUNG published its message before the store of
//       CHANGING that precedes the emptying, so the thread that empties the pipe sees the message
//       and writes the byte.
//    b. With one reader there is no spurious byte. If the reader, having taken the last message,
//       finds SILENT, then a sender that has yet to write a byte will ask "ready" after that, and
//       the answer is no. If the reader finds another state, it waits for the lock and empties the
//       pipe itself, before its receive() returns.
//    Several readers race for one message, as on any pipe.
//
// A thread that has waited kPatienceNs for the lock (because its holder is stopped) gives up and
// settles without the lock: the descriptor may stay readable for too long, but is never silent for
// too long. It stores ALONE first. The holder ends with a compare-exchange of CHANGING, so it never
// stores what it knew before such a thread has changed the pipe. Then the thread sets `again` and
// tries to take the lock. If that fails, the lock's holder loads `again` after it has released the
// lock, and settles once more. From then on this process does not wait for that holder. A reaper
// does not wait for the lock at all: if the dead member holds it, the same reap takes it back
// later; and members that wait for the reap must not wait for a stopped holder of the lock.
//
// Ringing can fail: the process can open no more files and start no thread, or the pipe belongs to
// another user. Then state stays SILENT while the channel is ready, and the next operation rings:
// that of a sender, a reaper, or a member that waits. A process can also die between publishing a
// message and ringing. Its held words name the channel, and its reaper rings. A process that waits
// only for the descriptor sleeps in the kernel, so it must call Channel::look_after() every 250 ms
// or so.
//
// Design: docs/design/channel.md
#pragma once

#include <cstdint>

#include "arena/arena.hpp"
#include "os/atomic.hpp"
#include "os/place.hpp"
#include "sync/mutex.hpp"

namespace shoal::channel {

struct BellBoard {
  static constexpr int kKeepers = 22;
  sync::MutexState lock;
  os::Atomic<uint64_t> pipe;
  os::Atomic<uint32_t> state;
  os::Atomic<uint32_t> again;
  os::Atomic<uint64_t> keepers[kKeepers];

  void create() noexcept { lock.magic = sync::Mutex::kMagic; }
};
static_assert(sizeof(BellBoard) == 256 && offsetof(BellBoard, pipe) == 64);

// One process's access to a board. Any thread may call it. Only descriptor() throws.
class Bell {
 public:
  // `ask(user)` says whether the channel is ready; `user` is the board's channel.
  using IsReady = bool (*)(const void* user) noexcept;
  Bell(arena::Arena& arena, BellBoard& board, IsReady ask, const void* user) noexcept
      : arena_(&arena), board_(&board), ask_(ask), user_(user) {}
  ~Bell();
  Bell(const Bell&) = delete;
  Bell& operator=(const Bell&) = delete;

  // Call it after an operation that may have made the channel ready. Costs one load when no process
  // has asked for the descriptor.
  void more(arena::Member& member) noexcept {
    if (board_->pipe.load() != 0 && board_->state.load() != kRung) settle(member);
  }
  // Call it after an operation that may have made the channel not ready.
  void less(arena::Member& member) noexcept {
    if (board_->pipe.load() != 0 && board_->state.load() != kSilent && !is_ready()) settle(member);
  }
  // Settles if another member has failed to ring. Otherwise costs two loads and one check of
  // is_ready().
  void check(arena::Member& member) noexcept {
    if (board_->pipe.load() == 0) return;
    if (board_->state.load() != (is_ready() ? kRung : kSilent)) settle(member);
  }
  // Called by a reaper. Makes the descriptor readable if the channel is ready, and silent if it is
  // not, whatever state the dead member has left. Never waits.
  void settle_reaping(arena::Member& reaper) noexcept;

  // The descriptor, readable while the channel is ready. The bell owns it; a fork's child has it
  // under the same number. -1: a signal came, or the deadline has passed, as the lock's holder is
  // stopped; so it can be only before this process has the descriptor. Throws OsError.
  int descriptor(arena::Member& member, int64_t deadline_ns);
  // The same. Throws runtime_error(kHeldUp) when the lock's holder is stopped.
  int descriptor(arena::Member& member);
  static constexpr int64_t kLongPatienceNs = 5'000'000'000;
  static constexpr const char* kHeldUp =
      "a stopped process holds the lock of this queue's descriptor: continue it (SIGCONT) or kill"
      " it";
  // Call it before the board may be freed: other processes stop looking for the pipe in this one.
  void leave() noexcept;

 private:
  static constexpr uint32_t kSilent = 0;
  static constexpr uint32_t kRung = 1;
  static constexpr uint32_t kChanging = 2;
  static constexpr uint32_t kAlone = 3;
  static constexpr int64_t kPatienceNs = 20'000'000;

  [[nodiscard]] bool is_ready() const noexcept { return ask_(user_); }
  void settle(arena::Member& member) noexcept;
  void settle_having(arena::Member& member, bool locked, bool unsure);
  bool lock_patiently(arena::Member& member, bool* unsure);
  bool try_lock(arena::Member& member, bool* unsure);
  void unlock(arena::Member& member);
  void settle_locked(bool unsure) noexcept;
  void settle_unlocked() noexcept;
  bool ring() noexcept;
  bool hush() noexcept;
  bool act(bool (*through)(int fd), bool (*at)(const os::Place&, uint64_t)) noexcept;
  int known_descriptor() noexcept;
  int find_or_make_pipe();
  int reach(uint64_t identity, os::Place* unreachable) noexcept;
  void keep(int fd) noexcept;
  void forget_keeper(int index, uint64_t word) noexcept;

  arena::Arena* arena_;
  BellBoard* board_;
  IsReady ask_;
  const void* user_;
  // This process's descriptor of the pipe, -1: none. A fork's child has it under the same number.
  os::Atomic<int> fd_{-1};
  os::Atomic<uint64_t> identity_{0};  // the pipe's identity when fd_ was opened
  // The process that was entered as a keeper of fd_; 0: none, fd_ only serves to ring.
  os::Atomic<uint32_t> keeper_{0};
  // The lock's holder for which this process has waited in vain; 0: there is none.
  os::Atomic<arena::Incarnation> slow_{0};
};

}  // namespace shoal::channel
