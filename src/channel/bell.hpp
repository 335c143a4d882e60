// SPDX-License-Identifier: Apache-2.0
//
// Bell: a file descriptor that is readable exactly while a channel has messages (or room), for
// select, poll, epoll and asyncio. It is a pipe, shared by all processes that have asked for the
// descriptor or were forked by one that had: a byte in it says "readable".
//
// BellBoard, in the channel's state:
//   lock      only its holder writes into the pipe or reads from it
//   pipe      its identity; 0: nobody has asked for a descriptor
//   state     SILENT no byte is in it; RUNG a byte is in it; CHANGING one of the two, ask the pipe
//   again     1: somebody gave up waiting for the lock, so its holder looks once more
//   keepers   pid:32 | fd:32 of processes that have the pipe open, from whom others get it
// All are written under the lock, except `again`, and a keeper's word when that keeper leaves.
//
// "Ready" below is the channel's own question: is there a message (is there room)?
// Invariants, at each moment at which nobody has the lock:
// 1. state is RUNG if and only if a byte is in the pipe, else SILENT. (A death in between leaves
//    CHANGING, and the next one empties the pipe and starts from there.)
// 2. Whoever made the channel ready loads `state` after that, and takes the lock unless it is RUNG;
//    whoever took the last message loads it after that, and takes the lock unless it is SILENT.
// 3. The holder of the lock stores CHANGING first. Then it asks "ready" before it writes a byte, or
//    asks again after it has emptied the pipe and stored SILENT. So, all of these being seq_cst:
//    a. No wake-up is lost. A sender that finds RUNG published before the store of CHANGING that
//       precedes the emptying, so the one that empties sees its message and writes the byte.
//    b. With one reader the byte is never there for nothing. If the reader, having taken the last
//       message, finds SILENT, then a sender that has yet to write will ask after that, and find
//       nothing. If it finds anything else, it waits for the lock and empties the pipe itself,
//       before its receive() returns.
//    Several readers race for one message, as on any pipe.
//
// Whoever has waited kPatienceNs for the lock (its holder is stopped) gives up: the descriptor may
// stay readable for too long, but is never silent for too long. The holder finds `again` when it
// runs on, and looks once more. When a process dies between publishing and ringing, its held words
// name the channel, and its reaper rings.
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

// This process's access to a board. Any thread. Never throws but in descriptor().
class Bell {
 public:
  // For `user` of the board, to be asked whether it is ready.
  using IsReady = bool (*)(const void* user) noexcept;
  Bell(arena::Arena& arena, BellBoard& board, IsReady ask, const void* user) noexcept
      : arena_(&arena), board_(&board), ask_(ask), user_(user) {}
  ~Bell();
  Bell(const Bell&) = delete;
  Bell& operator=(const Bell&) = delete;

  // Call it after what may have made the channel ready. Costs one load when nobody listens.
  void more(arena::Member& member) noexcept {
    if (board_->pipe.load() != 0 && board_->state.load() != kRung) settle(member);
  }
  // Call it after what may have made it not ready.
  void less(arena::Member& member) noexcept {
    if (board_->pipe.load() != 0 && board_->state.load() != kSilent && !is_ready()) settle(member);
  }
  // Makes the descriptor say whether the channel is ready.
  void settle(arena::Member& member) noexcept { settle(member, 0); }
  // The same for a reaper, which must not wait for a lock that it has to take back itself.
  void settle_for(arena::Member& reaper, arena::Incarnation dead) noexcept { settle(reaper, dead); }

  // Readable while it is ready. The bell keeps it; a fork's child has the same. Throws OsError, or
  // runtime_error when the lock's holder is stopped.
  int descriptor(arena::Member& member);
  // Call it before the board may be freed: others stop looking for the pipe in this process.
  void leave() noexcept;

 private:
  static constexpr uint32_t kSilent = 0;
  static constexpr uint32_t kRung = 1;
  static constexpr uint32_t kChanging = 2;
  static constexpr int64_t kPatienceNs = 20'000'000;
  static constexpr int64_t kLongPatienceNs = 5'000'000'000;

  [[nodiscard]] bool is_ready() const noexcept { return ask_(user_); }
  void settle(arena::Member& member, arena::Incarnation dead) noexcept;
  bool lock(arena::Member& member, int64_t patience_ns, bool* unsure);
  bool lock_without_reaping(arena::Member& member, arena::Incarnation dead, bool* unsure);
  void unlock(arena::Member& member);
  void settle_locked(bool unsure) noexcept;
  void settle_unlocked() noexcept;
  bool ring() noexcept;
  bool hush() noexcept;
  bool act(void (*through)(int fd), bool (*at)(const os::Place&, uint64_t)) noexcept;
  int reach(uint64_t identity, os::Place* unreachable) noexcept;
  void keep(int fd) noexcept;
  void forget_keeper(int index, uint64_t word) noexcept;

  arena::Arena* arena_;
  BellBoard* board_;
  IsReady ask_;
  const void* user_;
  // The pipe, as far as it is open here; after a fork the child has it under the same number.
  os::Atomic<int> fd_{-1};
  os::Atomic<uint64_t> identity_{0};  // of the pipe that it was opened as
  // The process that was entered as a keeper of fd_; 0: none, fd_ is only to ring.
  os::Atomic<uint32_t> keeper_{0};
};

}  // namespace shoal::channel
