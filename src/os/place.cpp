// SPDX-License-Identifier: Apache-2.0
#include "os/place.hpp"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>

#include "os/error.hpp"
#include "os/process.hpp"

namespace shoal::os {

namespace {

constexpr int kInodeBits = 48;

uint64_t identity_of(const struct stat& status) noexcept {
  if (!S_ISFIFO(status.st_mode)) return 0;
  const uint64_t inode = status.st_ino & ((uint64_t{1} << kInodeBits) - 1);
  return static_cast<uint64_t>(status.st_dev) << kInodeBits | inode;
}

struct Path {
  char text[64];
};

Path path_of(const Place& place) noexcept {
  Path path{};
  std::snprintf(path.text, sizeof path.text, "/proc/%d/fd/%d", place.process, place.number);
  return path;
}

// ---- a thread with its own descriptor table ----

struct Errand {
  Place place;
  uint64_t identity;
  bool (*act)(int fd);
  bool done;
};

void* run_errand(void* argument) noexcept {
  auto& errand = *static_cast<Errand*>(argument);
  if (unshare(CLONE_FILES) != 0) return nullptr;
  for (const int number : {0, 1, 2}) close(number);  // in the thread's table: makes room
  int fd = -1;
  if (open_pipe_at(errand.place, errand.identity, &fd) == Found::yes) {
    errand.done = errand.act(fd);
  }
  return nullptr;  // the end of the thread closes its table, and with it fd
}

bool do_errand(const Place& place, uint64_t identity, bool (*act)(int)) noexcept {
  Errand errand{place, identity, act, false};
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);  // the thread inherits this: it takes no signals
  pthread_t thread;
  const bool started = pthread_create(&thread, nullptr, run_errand, &errand) == 0;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (started) pthread_join(thread, nullptr);
  return errand.done;
}

}  // namespace

int make_bell_pipe() {
  if (prctl(PR_GET_DUMPABLE) != 1 && geteuid() != 0) {
    throw OsError("open", EACCES,
                  "a queue's descriptor: this process is not dumpable (it has changed its user, or"
                  " called PR_SET_DUMPABLE), so others cannot open /proc/" +
                      std::to_string(own_pid()) + "/fd; call prctl(PR_SET_DUMPABLE, 1)");
  }
  int ends[2];
  if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) {
    throw OsError("pipe2", errno, "a queue's descriptor: ulimit -n (RLIMIT_NOFILE)?");
  }
  const Path path = path_of({own_pid(), ends[0]});
  const int fd = open(path.text, O_RDWR | O_CLOEXEC | O_NONBLOCK);
  const int error = errno;
  close(ends[0]);
  close(ends[1]);
  if (fd >= 0) return fd;
  throw OsError("open", error,
                std::string(path.text) +
                    ", for a queue's descriptor: other processes find it there; is /proc mounted?");
}

uint64_t pipe_identity(int fd) noexcept {
  struct stat status;
  return fd >= 0 && fstat(fd, &status) == 0 ? identity_of(status) : 0;
}

Found open_pipe_at(const Place& place, uint64_t identity, int* fd) noexcept {
  const Path path = path_of(place);
  struct stat status;
  // Check before opening: opening a file that is not our pipe can have side effects.
  if (stat(path.text, &status) != 0) {
    return errno == ENOENT || errno == ESRCH ? Found::gone : Found::unreachable;
  }
  if (identity_of(status) != identity) return Found::gone;
  const int opened = open(path.text, O_RDWR | O_CLOEXEC | O_NONBLOCK);
  if (opened < 0) return Found::unreachable;
  if (pipe_identity(opened) != identity) {
    close(opened);
    return Found::gone;
  }
  *fd = opened;
  return Found::yes;
}

bool put_byte(int fd) noexcept {
  return write(fd, "", 1) == 1 || errno == EAGAIN;  // EAGAIN: it is full of them
}

bool take_bytes(int fd) noexcept {
  char room[512];
  ssize_t got;
  do {
    got = read(fd, room, sizeof room);
  } while (got > 0);
  return got < 0 && errno == EAGAIN;
}

bool put_byte_at(const Place& place, uint64_t identity) noexcept {
  return do_errand(place, identity, put_byte);
}

bool take_bytes_at(const Place& place, uint64_t identity) noexcept {
  return do_errand(place, identity, take_bytes);
}

}  // namespace shoal::os
