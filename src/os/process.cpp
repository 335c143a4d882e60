// SPDX-License-Identifier: Apache-2.0
#include "os/process.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>

#include "os/proc_file.hpp"

// An older C library lacks the names; the numbers are the same on all machines.
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

namespace shoal::os {

namespace {

constexpr uint64_t kExiting = 0x4;  // PF_EXITING of the kernel's task flags

// What follows the pid. Two slashes: qemu's user-mode emulation recognizes its own process's
// /proc/PID/stat by the path, and shows each thread another start time there.
constexpr const char* kStat = "//stat";

struct Stat {
  char state = '?';
  uint64_t flags = 0;
  uint64_t threads = 0;
  uint64_t start_time = 0;
  uint64_t image = 0;
};

// Reads state (field 3), flags (9), number of threads (20), start time (22) and the start addresses
// of code and stack (26, 28; 0 or 1 if this process may not see them). The name in field 2 may
// contain blanks and brackets, so fields are counted from the last ')'.
bool parse_stat(const char* text, Stat& out) noexcept {
  const char* at = std::strrchr(text, ')');
  if (at == nullptr || at[1] != ' ') return false;
  out.state = at[2];
  at += 2;
  uint64_t code = 0;
  uint64_t stack = 0;
  int field = 3;
  for (; field <= 28 && at != nullptr; ++field) {
    const uint64_t value = std::strtoull(at, nullptr, 10);
    if (field == 9) out.flags = value;
    if (field == 20) out.threads = value;
    if (field == 22) out.start_time = value;
    if (field == 26) code = value;
    if (field == 28) stack = value;
    at = std::strchr(at, ' ');
    if (at != nullptr) ++at;
  }
  if (code > 1 && stack > 1) out.image = code * 31 + stack;
  return field > 28;
}

enum class Read { done, gone, failed };  // gone: the kernel says that there is no such task

Read read_stat(const char* path, Stat& out) noexcept {
  char text[1024];
  const long length = read_small_file(path, text, sizeof text);
  if (length < 0) return errno == ENOENT || errno == ESRCH ? Read::gone : Read::failed;
  return parse_stat(text, out) ? Read::done : Read::failed;
}

// Does /proc show this process's pid numbers? No if it was mounted in another pid namespace.
bool proc_is_ours() noexcept {
  char text[24];
  const ssize_t length = ::readlink("/proc/self", text, sizeof text - 1);
  if (length <= 0) return false;
  text[length] = '\0';
  return std::strtol(text, nullptr, 10) == own_pid();
}

bool finished(const Stat& stat) noexcept {
  return stat.state == 'Z' || stat.state == 'X' || (stat.flags & kExiting) != 0;
}

constexpr uint64_t mixed(uint64_t number) noexcept {
  number *= 0x9E3779B97F4A7C15;
  return (number ^ number >> 29) * 0xBF58476D1CE4E5B9;
}

struct DirectoryEntry {  // what getdents64 writes
  uint64_t inode;
  int64_t offset;
  unsigned short length;
  unsigned char type;
  char name[1];
};

// Have all threads that the kernel lists finished? `*listed` says which they are.
bool listed_threads_finished(pid_t pid, uint64_t* listed) noexcept {
  char path[64];
  make_path(path, sizeof path, "/proc/", pid, "/task");
  const int fd = ::open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return errno == ENOENT || errno == ESRCH;
  bool finished_all = true;
  alignas(8) char buffer[2048];
  long got = 0;
  while (finished_all && (got = syscall(SYS_getdents64, fd, buffer, sizeof buffer)) > 0) {
    for (long at = 0; finished_all && at < got;) {
      const auto* entry = reinterpret_cast<const DirectoryEntry*>(buffer + at);
      at += entry->length;
      const char* name = reinterpret_cast<const char*>(entry) + offsetof(DirectoryEntry, name);
      if (name[0] < '0' || name[0] > '9') continue;
      char prefix[64];
      make_path(prefix, sizeof prefix, "/proc/", pid, "/task/");
      const long number = std::strtol(name, nullptr, 10);
      *listed += mixed(static_cast<uint64_t>(number));
      make_path(path, sizeof path, prefix, number, "/stat");
      Stat thread;
      const Read read = read_stat(path, thread);
      if (read == Read::failed || (read == Read::done && !finished(thread))) finished_all = false;
    }
  }
  const bool complete = got == 0 || (got < 0 && (errno == ENOENT || errno == ESRCH));
  ::close(fd);
  return finished_all && complete;
}

// Has every thread of the process finished? A process shows Z as soon as its first thread has
// ended, although other threads may still run. A thread may start another thread after the list was
// made and before its state is read, so a second list must be the same.
bool all_threads_finished(pid_t pid, const Stat& first_thread) noexcept {
  if (first_thread.threads <= 1) return true;
  uint64_t before = 0;
  uint64_t again = 0;
  return listed_threads_finished(pid, &before) && listed_threads_finished(pid, &again) &&
         before == again;
}

bool dumping_core(pid_t pid) noexcept {
  char path[64];
  char text[4096];
  make_path(path, sizeof path, "/proc/", pid, "/status");
  if (read_small_file(path, text, sizeof text) <= 0) return false;
  const char* at = std::strstr(text, "\nCoreDumping:\t");
  return at != nullptr && at[14] == '1';
}

Stat stat_or_zeros(pid_t pid) noexcept {
  const int saved = errno;
  char path[64];
  make_path(path, sizeof path, "/proc/", pid, kStat);
  Stat stat;
  if (!proc_is_ours() || read_stat(path, stat) != Read::done) stat = {};
  errno = saved;
  return stat;
}

// Without /proc, an existing process may be a zombie. Only a zombie child can be recognized: it can
// be waited for.
Life life_without_proc(pid_t pid) noexcept {
  if (::kill(pid, 0) != 0 && errno == ESRCH) return Life::dead;
  siginfo_t ended{};
  const int options = WEXITED | WNOHANG | WNOWAIT;
  const bool can_be_waited_for =
      ::waitid(P_PID, static_cast<id_t>(pid), &ended, options) == 0 && ended.si_pid == pid;
  return can_be_waited_for ? Life::dead : Life::unknown;
}

}  // namespace

pid_t own_thread_id() noexcept { return static_cast<pid_t>(syscall(SYS_gettid)); }

pid_t own_pid() noexcept { return static_cast<pid_t>(syscall(SYS_getpid)); }

uint64_t start_time(pid_t pid) noexcept { return stat_or_zeros(pid).start_time; }

uint64_t process_image(pid_t pid) noexcept { return stat_or_zeros(pid).image; }

Life process_life(pid_t pid, uint64_t expected_start, uint64_t image) noexcept {
  if (pid <= 0) return Life::dead;
  const int saved = errno;
  char path[64];
  make_path(path, sizeof path, "/proc/", pid, kStat);
  Stat stat;
  Life life = Life::alive;
  if (!proc_is_ours() || read_stat(path, stat) != Read::done) {
    life = life_without_proc(pid);
  } else if (expected_start != 0 && stat.start_time != expected_start) {
    life = Life::dead;
  } else if (image != 0 && stat.image != 0 && stat.image != image) {
    life = Life::dead;
  } else if (finished(stat)) {
    life = all_threads_finished(pid, stat) ? Life::dead : Life::alive;
  } else if (dumping_core(pid)) {
    life = Life::dead;
  }
  errno = saved;
  return life;
}

uint64_t pid_namespace() noexcept {
  const int saved = errno;
  struct stat status{};
  const bool known = ::stat("/proc/self/ns/pid", &status) == 0;
  errno = saved;
  return known ? status.st_ino : 0;
}

bool has_no_child() noexcept {
  const int saved = errno;
  siginfo_t ended{};
  const int options = WEXITED | WNOHANG | WNOWAIT;
  const bool none = ::waitid(P_ALL, 0, &ended, options) != 0 && errno == ECHILD;
  errno = saved;
  return none;
}

int pidfd_open(pid_t pid) noexcept {
  const long fd = syscall(SYS_pidfd_open, pid, 0);
  if (fd < 0 && errno == EPERM) errno = ENOSYS;
  return static_cast<int>(fd);
}

int pidfd_send_signal(int pidfd, int signal) noexcept {
  return static_cast<int>(syscall(SYS_pidfd_send_signal, pidfd, signal, nullptr, 0));
}

bool pidfd_dead(int pidfd) noexcept {
  pollfd entry{pidfd, POLLIN, 0};
  int ready;
  do ready = ::poll(&entry, 1, 0);
  while (ready < 0 && errno == EINTR);
  return ready > 0 && (entry.revents & POLLIN) != 0;
}

}  // namespace shoal::os
