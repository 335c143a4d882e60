// SPDX-License-Identifier: Apache-2.0
#include "os/watch.hpp"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <new>

#include "os/process.hpp"

namespace shoal::os {

namespace {

struct Watched {
  pid_t pid = 0;  // 0: unused
  uint64_t start = 0;
  int tell = -1;  // write end of the pipe; gets a byte when the process has ended
};

struct Looker {
  std::mutex lock;  // guards the members below; held for one round of checks
  bool running = false;
  Watched watched[kMostWatched];
};

// Is the read end of the pipe closed everywhere?
bool is_dropped(int tell) noexcept {
  pollfd entry{tell, 0, 0};
  return ::poll(&entry, 1, 0) > 0;
}

// Checks each watched process once. False: none is left to watch.
bool look(Looker& looker) noexcept {
  bool any = false;
  for (Watched& one : looker.watched) {
    if (one.pid == 0) continue;
    const bool dead = process_life(one.pid, one.start) == Life::dead;
    if (!dead && !is_dropped(one.tell)) {
      any = true;
      continue;
    }
    // Closing is not enough to make it readable: a fork's child may have a copy of this end.
    if (dead) (void)!::write(one.tell, "", 1);
    ::close(one.tell);
    one = {};
  }
  return any;
}

void* keep_looking(void* argument) noexcept {
  auto& looker = *static_cast<Looker*>(argument);
  for (;;) {
    const timespec pause{0, kLookMs * 1'000'000L};
    nanosleep(&pause, nullptr);
    const std::lock_guard lock(looker.lock);
    if (look(looker)) continue;
    looker.running = false;
    return nullptr;
  }
}

bool start_looking(Looker& looker) noexcept {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);  // the thread inherits this: it takes no signals
  pthread_t thread;
  const int error = pthread_create(&thread, nullptr, keep_looking, &looker);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (error != 0) {
    errno = error;
    return false;
  }
  pthread_detach(thread);
  return true;
}

// This process's looker. Never destroyed: the thread may outlive main().
Looker& this_process() noexcept;

// The lock is held across a fork, so that the child finds a consistent state.
void before_fork() noexcept { this_process().lock.lock(); }
void in_parent() noexcept { this_process().lock.unlock(); }

// The child has no looker thread.
void in_child() noexcept {
  Looker& looker = this_process();
  looker.running = false;
  for (Watched& one : looker.watched) {
    if (one.tell >= 0) ::close(one.tell);
    one = {};
  }
  looker.lock.unlock();
}

Looker& this_process() noexcept {
  alignas(Looker) static std::byte room[sizeof(Looker)];
  static auto* const looker = [] {
    pthread_atfork(before_fork, in_parent, in_child);
    return new (room) Looker;
  }();
  return *looker;
}

}  // namespace

int watch_by_looking(pid_t pid) noexcept {
  const uint64_t start = start_time(pid);
  if (process_life(pid, start) == Life::dead) {
    // A zombie child can still be watched, as with pidfd_open().
    if (::kill(pid, 0) != 0) return -1;
  }
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return -1;
  Looker& looker = this_process();
  const std::lock_guard lock(looker.lock);
  for (Watched& one : looker.watched) {
    if (one.pid != 0) continue;
    one = {pid, start, ends[1]};
    if (!looker.running) looker.running = start_looking(looker);
    if (looker.running) return ends[0];
    one = {};
    ::close(ends[0]);
    ::close(ends[1]);
    return -1;
  }
  ::close(ends[0]);
  ::close(ends[1]);
  errno = EMFILE;
  return -1;
}

int watch_process(pid_t pid) noexcept {
  const int fd = pidfd_open(pid);
  return fd >= 0 || errno != ENOSYS ? fd : watch_by_looking(pid);
}

int signal_watched(int watched, pid_t pid, int signal) noexcept {
  if (pidfd_send_signal(watched, signal) == 0) return 0;
  if (errno != ENOSYS && errno != EPERM && errno != EBADF) return -1;
  if (!pidfd_dead(watched)) return ::kill(pid, signal);
  errno = ESRCH;
  return -1;
}

}  // namespace shoal::os
