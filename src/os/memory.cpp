// SPDX-License-Identifier: Apache-2.0
#include "os/memory.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <string>

#include "os/atomic.hpp"
#include "os/error.hpp"
#include "os/proc_file.hpp"
#include "os/segment.hpp"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

namespace shoal::os {

namespace {

// Blocks every signal for the life of the object: SIGXFSZ would kill the process, and others make
// older kernels restart fallocate.
class SignalsBlocked {
 public:
  SignalsBlocked() noexcept {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() {
    const int saved = errno;
    sigset_t pending;
    // A SIGXFSZ that this thread caused must not stay pending: it would kill the process as soon as
    // signals are unblocked.
    if (sigismember(&before_, SIGXFSZ) == 0 && sigpending(&pending) == 0 &&
        sigismember(&pending, SIGXFSZ) == 1) {
      sigset_t only;
      sigemptyset(&only);
      sigaddset(&only, SIGXFSZ);
      const timespec now{0, 0};
      sigtimedwait(&only, nullptr, &now);
    }
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
    errno = saved;
  }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_;
};

// Calls `step(offset, size)` on pieces of at most kFileStep; stops at the first that fails.
template <class Step>
bool in_steps(uint64_t size, const Step& step) noexcept {
  for (uint64_t done = 0; done < size; done += kFileStep)
    if (!step(done, std::min(kFileStep, size - done))) return false;
  return true;
}

// An empty file without a name, for kernels and sandboxes without memfd_create.
int create_nameless_file() noexcept {
  for (const char* folder : {"/dev/shm", "/tmp", "/var/tmp"}) {
    const int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0) return fd;
  }
  return -1;
}

struct EmptyFile {
  int fd;
  bool is_memory;  // false: it is in a folder whose file system may be small or a disk
};

EmptyFile create_empty_file(const char* name) {
  const int memory = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (memory >= 0) return {memory, true};
  const int error = errno;
  const bool forbidden = error == ENOSYS || error == EPERM || error == EACCES;
  const int file = forbidden ? create_nameless_file() : -1;
  if (file >= 0) return {file, false};
  throw OsError("memfd_create", error,
                forbidden ? "the kernel or a sandbox forbids it, and no file can be made in "
                            "/dev/shm, /tmp or /var/tmp in its place: allow the call, or make "
                            "/dev/shm writable"
                          : "a memory file");
}

}  // namespace

uint64_t page_size() noexcept { return static_cast<uint64_t>(sysconf(_SC_PAGESIZE)); }

int create_memory_file(const char* name, uint64_t size) {
  const auto [fd, is_memory] = create_empty_file(name);
  try {
    const SignalsBlocked blocked;
    if (!is_memory) {
      make_segment(fd, size);
    } else if (ftruncate(fd, static_cast<off_t>(size)) == 0) {
      // no error if the seals fail: shoal itself never changes the size
      fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW);
    } else if (errno == EFBIG) {
      make_segment(fd, size);
    } else {
      throw OsError("ftruncate", errno, "arena of " + std::to_string(size) + " bytes");
    }
  } catch (const OsError&) {
    ::close(fd);
    throw;
  }
  return fd;
}

int duplicate_fd(int fd) {
  const int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
  if (copy < 0) throw OsError("fcntl(F_DUPFD_CLOEXEC)", errno, "fd " + std::to_string(fd));
  return copy;
}

bool identify(int fd, FileIdentity* out) noexcept {
  struct stat status;
  if (fd < 0 || fstat(fd, &status) != 0) return false;
  *out = {status.st_dev, status.st_ino, static_cast<uint64_t>(status.st_size), false};
  if (out->size != 0) return true;
  out->size = segment_size(fd);
  out->is_segment = out->size != 0;
  return true;
}

void close_fd(int fd) noexcept {
  if (fd >= 0) ::close(fd);
}

namespace {
struct flock one_byte(uint64_t offset) noexcept {
  struct flock lock{};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(offset);
  lock.l_len = 1;
  return lock;
}
}  // namespace

int lock_byte(int fd, uint64_t offset) noexcept {
  char path[48];
  make_path(path, sizeof path, "/proc/self/fd/", fd, "");
  const int own = ::open(path, O_RDWR | O_CLOEXEC);
  if (own < 0) return -1;
  struct flock lock = one_byte(offset);
  if (fcntl(own, F_OFD_SETLK, &lock) == 0) return own;
  const int error = errno;
  ::close(own);
  errno = error;
  return -1;
}

bool byte_is_free(int fd, uint64_t offset) noexcept {
  struct flock lock = one_byte(offset);
  return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type == F_UNLCK;
}

uint64_t address_space_left() noexcept {
  rlimit limit{};
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return UINT64_MAX;
  char text[128];
  uint64_t used = 0;
  if (read_small_file("/proc/self/statm", text, sizeof text) > 0) {
    used = std::strtoull(text, nullptr, 10) * page_size();
  }
  return limit.rlim_cur > used ? limit.rlim_cur - used : 0;
}

std::byte* map_file(int fd, uint64_t offset, uint64_t size, bool shared, void* at) noexcept {
  if (at != nullptr) before_access(at);  // tests stop here
  if (segment_size(fd) != 0) return map_segment(fd, offset, size, shared, at);
  const int flags =
      (shared ? MAP_SHARED : MAP_PRIVATE) | MAP_NORESERVE | (at != nullptr ? MAP_FIXED : 0);
  void* mapped = mmap(at, size, PROT_READ | PROT_WRITE, flags, fd, static_cast<off_t>(offset));
  if (mapped == MAP_FAILED) return nullptr;
  madvise(mapped, size, MADV_DONTDUMP);
  return static_cast<std::byte*>(mapped);
}

bool can_reserve(uint64_t size) noexcept {
  void* mapped = mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return false;
  munmap(mapped, size);
  return true;
}

void unmap(void* at, uint64_t size) noexcept { munmap(at, size); }

bool reserve_file_range(int fd, uint64_t offset, uint64_t size) noexcept {
  const SignalsBlocked blocked;
  return in_steps(size, [&](uint64_t done, uint64_t step) noexcept {
    int result;
    do result = fallocate(fd, 0, static_cast<off_t>(offset + done), static_cast<off_t>(step));
    while (result != 0 && errno == EINTR);
    return result == 0;
  });
}

bool populate(void* at, uint64_t size) noexcept {
  const uint64_t page = page_size();
  const SignalsBlocked blocked;
  const auto unaligned = reinterpret_cast<uintptr_t>(at) % page;  // madvise() takes whole pages
  std::byte* const begin = static_cast<std::byte*>(at) - unaligned;
  const uint64_t whole = (size + unaligned + page - 1) / page * page;
  return in_steps(whole, [&](uint64_t done, uint64_t step) noexcept {
    if (madvise(begin + done, step, MADV_POPULATE_WRITE) == 0) return true;
    if (errno != EINVAL) return false;
    // The kernel does not know MADV_POPULATE_WRITE. Touch each page without changing it: other
    // processes may be using the contents.
    for (uint64_t touched = done; touched < done + step; touched += page) {
      reinterpret_cast<Atomic<uint64_t>*>(begin + touched)->fetch_or(0);
    }
    return true;
  });
}

bool punch(void* at, uint64_t size) noexcept {
  const SignalsBlocked blocked;
  return in_steps(size, [&](uint64_t done, uint64_t step) noexcept {
    return madvise(static_cast<std::byte*>(at) + done, step, MADV_REMOVE) == 0;
  });
}

void* copy_of(const void* at, uint64_t size) noexcept {
  void* copy = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (copy == MAP_FAILED) return nullptr;
  madvise(copy, size, MADV_DONTDUMP);
  std::memcpy(copy, at, size);
  return copy;
}

bool put_in_place(void* copy, uint64_t size, void* at) noexcept {
  return mremap(copy, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, at) != MAP_FAILED;
}

bool forbid(void* at, uint64_t size) noexcept { return mprotect(at, size, PROT_NONE) == 0; }

uint64_t most_mappings() noexcept {
  constexpr uint64_t kUsual = 65530;
  char text[32];
  if (read_small_file("/proc/sys/vm/max_map_count", text, sizeof text) <= 0) return kUsual;
  const uint64_t most = std::strtoull(text, nullptr, 10);
  return most == 0 ? kUsual : most;
}

bool collapse(void* at, uint64_t size) noexcept { return madvise(at, size, MADV_COLLAPSE) == 0; }

}  // namespace shoal::os
