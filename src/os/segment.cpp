// SPDX-License-Identifier: Apache-2.0
#include "os/segment.hpp"

#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <string>

#include "os/error.hpp"
#include "os/memory.hpp"
#include "os/random.hpp"

namespace shoal::os {

namespace {

constexpr long kMark = 505'421'347;  // nanoseconds of the file's modification time

// The number of the segment that the file names; -1: it is some other file.
int number_of(int file) noexcept {
  struct stat status;
  if (fstat(file, &status) != 0 || status.st_size != 0 || status.st_mtim.tv_nsec != kMark) {
    return -1;
  }
  return static_cast<int>(status.st_mtim.tv_sec);
}

bool is_gone(pid_t pid) noexcept { return pid > 0 && ::kill(pid, 0) != 0 && errno == ESRCH; }

// Removes segments of this user that a killed process made and did not mark for removal.
void remove_leftovers() noexcept {
  shm_info summary{};
  const int last = shmctl(0, SHM_INFO, reinterpret_cast<shmid_ds*>(&summary));
  for (int i = 0; i <= last; ++i) {
    shmid_ds found{};
    const int number = shmctl(i, SHM_STAT, &found);
    if (number < 0 || found.shm_nattch != 0 || found.shm_perm.cuid != geteuid()) continue;
    if ((static_cast<uint32_t>(found.shm_perm.__key) & 0xFFFF'0000) != kKeyPrefix) continue;
    if (is_gone(found.shm_cpid)) shmctl(number, IPC_RMID, nullptr);
  }
}

int new_segment(uint64_t size) {
  for (;;) {
    const auto key = static_cast<key_t>(kKeyPrefix | (random_bits() & 0xFFFF));
    const int number = shmget(key, size, IPC_CREAT | IPC_EXCL | SHM_NORESERVE | 0600);
    if (number >= 0) return number;
    if (errno != EEXIST) {
      throw OsError("shmget", errno,
                    "a shared segment of " + std::to_string(size >> 20) +
                        " MiB, in the place of a memory file: raise ulimit -f (RLIMIT_FSIZE), or"
                        " the system's kernel.shmmax and kernel.shmall");
    }
  }
}

// The whole segment, at an address of the kernel's choice.
std::byte* attach(int number) noexcept {
  void* const at = shmat(number, nullptr, 0);
  return reinterpret_cast<intptr_t>(at) == -1 ? nullptr : static_cast<std::byte*>(at);
}

void* private_copy(const std::byte* from, uint64_t size) noexcept {
  void* const copy =
      mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (copy == MAP_FAILED) return nullptr;
  std::memcpy(copy, from, size);
  return copy;
}

}  // namespace

void make_segment(int file, uint64_t size) {
  remove_leftovers();
  const int number = new_segment(size);
  std::byte* const at = attach(number);
  const int error = errno;
  shmctl(number, IPC_RMID, nullptr);
  if (at == nullptr) throw OsError("shmat", error, "ulimit -v (RLIMIT_AS)?");
  // One page stays attached for the life of this process, so that the segment stays until the file
  // is mapped.
  const uint64_t page = page_size();
  if (size > page) munmap(at + page, size - page);
  const timespec times[2] = {{0, UTIME_OMIT}, {number, kMark}};
  if (futimens(file, times) == 0) return;
  const int refused = errno;
  munmap(at, page);
  throw OsError("futimens", refused, "the file that stands for a shared segment");
}

uint64_t segment_size(int file) noexcept {
  const int number = number_of(file);
  shmid_ds found{};
  if (number < 0 || shmctl(number, IPC_STAT, &found) != 0) return 0;
  return found.shm_segsz;
}

std::byte* map_segment(int file, uint64_t offset, uint64_t size, bool shared, void* at) noexcept {
  const uint64_t whole = segment_size(file);
  if (offset > whole || size > whole - offset) {
    errno = EINVAL;
    return nullptr;
  }
  std::byte* const all = attach(number_of(file));
  if (all == nullptr) return nullptr;
  // Keep the pages of the requested part, unmap the rest.
  std::byte* part = all + offset;
  if (offset > 0) munmap(all, offset);
  const uint64_t kept = (size + page_size() - 1) / page_size() * page_size();
  if (kept < whole - offset) munmap(part + kept, whole - offset - kept);
  if (!shared) {
    void* const copy = private_copy(part, size);
    munmap(part, size);
    if (copy == nullptr) return nullptr;
    part = static_cast<std::byte*>(copy);
  }
  if (at != nullptr) {
    void* const moved = mremap(part, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, at);
    if (moved == MAP_FAILED) {
      const int error = errno;
      munmap(part, size);
      errno = error;
      return nullptr;
    }
    part = static_cast<std::byte*>(moved);
  }
  madvise(part, size, MADV_DONTDUMP);
  return part;
}

}  // namespace shoal::os
