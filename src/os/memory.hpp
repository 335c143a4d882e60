// SPDX-License-Identifier: Apache-2.0
//
// Memory files and mappings. Functions that create something throw OsError; the others return false
// with errno, so that fork handlers and noexcept code can use them.
//
// 1. reserve_file_range never causes SIGXFSZ or SIGBUS. It works in steps of at most kFileStep with
//    signals blocked: older kernels restart a whole fallocate at each signal.
// 2. A file descriptor number is not trusted: user code may close any number and reuse it. Call
//    identify() before use.
// Design: docs/design/os.md
#pragma once

#include <cstddef>
#include <cstdint>

namespace shoal::os {

inline constexpr uint64_t kFileStep = 16 << 20;

// The kernel's page size: 4 KiB on x86-64; 4, 16 or 64 KiB on aarch64.
uint64_t page_size() noexcept;

struct FileIdentity {
  uint64_t device = 0;
  uint64_t inode = 0;
  uint64_t size = 0;        // of the memory
  bool is_segment = false;  // the file is empty and names a System V segment: os/segment.hpp
  bool operator==(const FileIdentity& other) const noexcept {
    return device == other.device && inode == other.inode;
  }
};

// An anonymous memory file of this size (all holes), close-on-exec, which can neither shrink nor
// grow; where that is impossible (RLIMIT_FSIZE, no memfd_create), an empty file that names a
// System V segment.
int create_memory_file(const char* name, uint64_t size);
int duplicate_fd(int fd);  // close-on-exec; throws OsError
bool identify(int fd, FileIdentity* out) noexcept;
void close_fd(int fd) noexcept;

// Locks one byte of the file behind `fd` through a new open file description, and returns its
// descriptor. The lock lasts until all processes that have inherited that descriptor have closed
// it, exec'd or died. -1 with errno: no lock is possible (no /proc, no descriptor left).
int lock_byte(int fd, uint64_t offset) noexcept;
// Is it certain that no open file description except fd's own has that byte locked?
bool byte_is_free(int fd, uint64_t offset) noexcept;

// How much more address space this process may map (RLIMIT_AS); UINT64_MAX: no limit.
uint64_t address_space_left() noexcept;

// Maps the file shared (or private), excluded from core dumps. If `at` is not null, replaces the
// mapping there. nullptr with errno on failure.
std::byte* map_file(int fd, uint64_t offset, uint64_t size, bool shared,
                    void* at = nullptr) noexcept;
// Is a mapping of this size possible (address space, RLIMIT_AS)?
bool can_reserve(uint64_t size) noexcept;
void unmap(void* at, uint64_t size) noexcept;

// Reserves memory behind the range and keeps its contents. False with errno (ENOSPC, ENOMEM, ...).
bool reserve_file_range(int fd, uint64_t offset, uint64_t size) noexcept;
// The same through a mapping, for a lost descriptor or a segment: touches every page.
bool populate(void* at, uint64_t size) noexcept;
// Gives the memory behind a shared mapping back to the system; it reads as zero afterwards.
bool punch(void* at, uint64_t size) noexcept;
// A copy of the range in new private memory, for put_in_place() or unmap(); nullptr with errno.
void* copy_of(const void* at, uint64_t size) noexcept;
// Moves such a copy to `at`, in place of the mapping there. False with errno: the copy was not
// moved.
bool put_in_place(void* copy, uint64_t size, void* at) noexcept;
// Makes every access to the range fault. False with errno.
bool forbid(void* at, uint64_t size) noexcept;
// How many mappings the kernel allows a process (vm.max_map_count).
uint64_t most_mappings() noexcept;
// Replaces the pages behind a warm range by huge pages (MADV_COLLAPSE, Linux 6.1); false if the
// kernel cannot.
bool collapse(void* at, uint64_t size) noexcept;

}  // namespace shoal::os
