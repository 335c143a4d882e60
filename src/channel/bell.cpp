// SPDX-License-Identifier: Apache-2.0
#include "channel/bell.hpp"

#include <stdexcept>

#include "os/clock.hpp"
#include "os/error.hpp"
#include "os/process.hpp"
#include "os/stream.hpp"
#include "testing/kill_point.hpp"

namespace shoal::channel {

namespace {

uint64_t keeper_word(pid_t process, int fd) noexcept {
  return static_cast<uint64_t>(process) << 32 | static_cast<uint32_t>(fd);
}

os::Place place_in(uint64_t word) noexcept {
  return {static_cast<pid_t>(word >> 32), static_cast<int>(word & 0xFFFF'FFFF)};
}

}  // namespace

// Does not touch the board: it may be freed by now.
Bell::~Bell() {
  const int fd = fd_.load();
  if (fd >= 0 && os::pipe_identity(fd) == identity_.load()) os::stream_close(fd);
}

void Bell::leave() noexcept {
  const pid_t me = os::own_pid();
  if (keeper_.load() != static_cast<uint32_t>(me)) return;
  const uint64_t word = keeper_word(me, fd_.load());
  for (int i = 0; i < BellBoard::kKeepers; ++i) {
    if (board_->keepers[i].load() == word) forget_keeper(i, word);
  }
}

// ---- the lock

// Waits kPatienceNs, but only once for each holder that is stopped. `*unsure`: the last holder died
// while it held the lock.
bool Bell::lock_patiently(arena::Member& member, bool* unsure) {
  sync::Mutex mutex(*arena_, board_->lock);
  const arena::Incarnation slow = slow_.load();
  if (slow != 0) {
    if (try_lock(member, unsure)) {
      slow_.store(0);
      return true;
    }
    if (mutex.owner() == slow) return false;
  }
  const int64_t deadline_ns = os::monotonic_ns() + kPatienceNs;
  for (;;) {
    const sync::Locked locked = mutex.lock(member, deadline_ns);
    if (locked == sync::Locked::interrupted) continue;
    *unsure = locked == sync::Locked::owner_died;
    slow_.store(sync::is_locked(locked) ? 0 : mutex.owner());
    return sync::is_locked(locked);
  }
}

bool Bell::try_lock(arena::Member& member, bool* unsure) {
  const sync::Locked locked = sync::Mutex(*arena_, board_->lock).try_lock(member);
  if (locked == sync::Locked::owner_died) *unsure = true;
  return sync::is_locked(locked);
}

void Bell::unlock(arena::Member& member) {
  sync::Mutex mutex(*arena_, board_->lock);
  static_cast<void>(mutex.unlock(member));
}

void Bell::settle(arena::Member& member) noexcept {
  if (board_->pipe.load() == 0) return;
  try {
    bool unsure = false;
    const bool locked = lock_patiently(member, &unsure);
    settle_having(member, locked, unsure);
  } catch (const std::exception&) {
    return;  // this process is no longer a member
  }
}

// The dead member may have written a byte without the lock.
void Bell::settle_reaping(arena::Member& reaper) noexcept {
  if (board_->pipe.load() == 0) return;
  try {
    bool unsure = true;
    const bool locked = try_lock(reaper, &unsure);
    settle_having(reaper, locked, unsure);
  } catch (const std::exception&) {
    return;  // this process is no longer a member
  }
}

// `again` is set after settling without the lock, when the effects of that are complete. Then
// either this thread gets the lock and settles properly, or the lock's holder releases it later,
// loads `again` afterwards, and settles.
void Bell::settle_having(arena::Member& member, bool locked, bool unsure) {
  if (!locked) {
    settle_unlocked();
    board_->again.store(1);
    locked = try_lock(member, &unsure);
  }
  while (locked) {
    unsure = board_->again.exchange(0) != 0 || unsure;
    settle_locked(unsure);
    unlock(member);
    unsure = false;
    locked = board_->again.load() != 0 && try_lock(member, &unsure);
  }
}

// `unsure`: a byte may be in the pipe, whatever `state` says.
void Bell::settle_locked(bool unsure) noexcept {
  for (;;) {
    const uint32_t state = unsure ? kChanging : board_->state.load();
    const bool ready = is_ready();
    if (state == (ready ? kRung : kSilent)) return;
    // COMMIT(bell.change.begin): killed before: unchanged; after: the next holder empties the pipe.
    board_->state.store(kChanging);
    SHOAL_KILL_POINT("bell.change.begin");
    uint32_t now = kSilent;
    bool done = false;
    if (state == kSilent) {
      if (is_ready() && ring()) now = kRung;
      done = now == kRung || is_ready();  // if no byte was written, the next operation tries again
    } else if (!hush()) {
      return;  // no process has the pipe any more, or the next operation tries again
    }
    // COMMIT(bell.change.end): killed before: the next holder empties the pipe; after: settled.
    uint32_t expected = kChanging;
    unsure = !board_->state.compare_exchange(expected, now);
    SHOAL_KILL_POINT("bell.change.end");
    if (done && !unsure) return;
  }
}

// For the case that the lock's holder is stopped or dead. ALONE makes this holder, or the next one,
// check the pipe.
void Bell::settle_unlocked() noexcept {
  // COMMIT(bell.change.alone): killed before: not told; after: the next holder empties the pipe.
  board_->state.store(kAlone);
  SHOAL_KILL_POINT("bell.change.alone");
  if (is_ready()) {
    ring();
    return;
  }
  hush();
  if (is_ready()) ring();
}

// ---- the pipe

bool Bell::ring() noexcept { return act(os::put_byte, os::put_byte_at); }
bool Bell::hush() noexcept { return act(os::take_bytes, os::take_bytes_at); }

bool Bell::act(bool (*through)(int fd), bool (*at)(const os::Place&, uint64_t)) noexcept {
  const uint64_t identity = board_->pipe.load();
  if (identity == 0) return false;
  os::Place unreachable{0, 0};
  const int fd = reach(identity, &unreachable);
  if (fd >= 0) return through(fd);
  if (unreachable.process != 0) return at(unreachable, identity);
  // COMMIT(bell.end.pipe): killed before: the next bell finds the same; after: no pipe.
  uint64_t expected = identity;
  board_->pipe.compare_exchange(expected, 0);
  SHOAL_KILL_POINT("bell.end.pipe");
  return false;
}

// This process's descriptor of the pipe, opened at a keeper if need be. -1: no keeper has the pipe,
// or (`*unreachable` is set) it has it, but this process cannot open it there.
int Bell::reach(uint64_t identity, os::Place* unreachable) noexcept {
  int mine = fd_.load();
  if (mine >= 0) {
    if (os::pipe_identity(mine) == identity) {
      const uint32_t keeper = keeper_.load();
      if (keeper != 0 && keeper != static_cast<uint32_t>(os::own_pid())) keep(mine);  // forked
      return mine;
    }
    fd_.compare_exchange(mine, -1);  // another file's number by now, or the pipe is a new one
  }
  for (int i = 0; i < BellBoard::kKeepers; ++i) {
    const uint64_t word = board_->keepers[i].load();
    if (word == 0) continue;
    int fd = -1;
    const os::Place place = place_in(word);
    switch (os::open_pipe_at(place, identity, &fd)) {
      case os::Found::gone:
        forget_keeper(i, word);
        continue;
      case os::Found::unreachable:
        *unreachable = place;
        continue;
      case os::Found::yes:
        break;
    }
    int none = -1;
    identity_.store(identity);
    if (fd_.compare_exchange(none, fd)) {
      keeper_.store(0);
      return fd;
    }
    os::stream_close(fd);  // another thread was faster
    return none;
  }
  return -1;
}

void Bell::forget_keeper(int index, uint64_t word) noexcept {
  // COMMIT(bell.forget.keeper): killed before: the next bell forgets it; after: unused.
  board_->keepers[index].compare_exchange(word, 0);
  SHOAL_KILL_POINT("bell.forget.keeper");
}

// Enters this process as a keeper, from which other processes can open the pipe. If all words are
// in use, there are more keepers than are likely to die at the same time.
void Bell::keep(int fd) noexcept {
  const pid_t me = os::own_pid();
  const uint64_t word = keeper_word(me, fd);
  keeper_.store(static_cast<uint32_t>(me));
  for (os::Atomic<uint64_t>& keeper : board_->keepers) {
    if (keeper.load() == word) return;
  }
  for (os::Atomic<uint64_t>& keeper : board_->keepers) {
    uint64_t expected = 0;
    // COMMIT(bell.keep.word): killed before: no word; after: a word of a process that is gone.
    const bool kept = keeper.compare_exchange(expected, word);
    SHOAL_KILL_POINT("bell.keep.word");
    if (kept) return;
  }
}

int Bell::descriptor(arena::Member& member) {
  const int64_t deadline_ns = os::monotonic_ns() + kLongPatienceNs;
  for (;;) {
    const int fd = descriptor(member, deadline_ns);
    if (fd >= 0) return fd;
    if (os::monotonic_ns() >= deadline_ns) throw std::runtime_error(kHeldUp);
  }
}

int Bell::descriptor(arena::Member& member, int64_t deadline_ns) {
  const int known = known_descriptor();
  if (known >= 0) {
    check(member);
    return known;
  }
  const sync::Locked locked = sync::Mutex(*arena_, board_->lock).lock(member, deadline_ns);
  if (!sync::is_locked(locked)) return -1;
  int fd = -1;
  try {
    fd = find_or_make_pipe();
  } catch (...) {
    unlock(member);
    throw;
  }
  settle_having(member, true, locked == sync::Locked::owner_died);
  return fd;
}

// The descriptor for which this process is a keeper already, so that no other process ends the
// pipe; else -1.
int Bell::known_descriptor() noexcept {
  const uint64_t identity = board_->pipe.load();
  const int fd = fd_.load();
  const bool is_keeper = keeper_.load() == static_cast<uint32_t>(os::own_pid());
  return identity != 0 && fd >= 0 && is_keeper && os::pipe_identity(fd) == identity ? fd : -1;
}

int Bell::find_or_make_pipe() {
  const uint64_t identity = board_->pipe.load();
  os::Place unreachable{0, 0};
  int fd = identity == 0 ? -1 : reach(identity, &unreachable);
  if (fd >= 0) {
    keep(fd);
    return fd;
  }
  if (unreachable.process != 0) {
    throw os::OsError("open", EMFILE,
                      "the descriptor of a queue, in process " +
                          std::to_string(unreachable.process) +
                          ": is ulimit -n (RLIMIT_NOFILE) reached, or is it another user's?");
  }
  fd = os::make_bell_pipe();
  identity_.store(os::pipe_identity(fd));
  fd_.store(fd);
  keep(fd);
  board_->state.store(kSilent);
  // COMMIT(bell.make.pipe): killed before: no pipe; after: the next bell finds it gone.
  board_->pipe.store(identity_.load());
  SHOAL_KILL_POINT("bell.make.pipe");
  return fd;
}

}  // namespace shoal::channel
