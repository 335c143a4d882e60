// SPDX-License-Identifier: Apache-2.0
//
// Memory files and mappings. Functions that create things throw OsError; the others return false
// with errno, so that fork handlers and noexcept code can use them.
//
// 1. reserve_file_range never sends SIGXFSZ or SIGBUS to anybody and works in steps of at most
//    kFileStep with signals blocked: older kernels start a whole fallocate over at each signal.
// 2. A file descriptor number is not trusted: user code may close any number and open it anew.
//    identify() before use.
// Design: docs/design/os.md
#pragma once

#include <cstddef>
#include <cstdint>

namespace shoal::os {

inline constexpr uint64_t kFileStep = 16 << 20;

struct FileIdentity {
  uint64_t device = 0;
  uint64_t inode = 0;
  uint64_t size = 0;        // of the memory
  bool is_segment = false;  // the file only stands for memory that is none: os/segment.hpp
  bool operator==(const FileIdentity& other) const noexcept {
    return device == other.device && inode == other.inode;
  }
};

// An anonymous memory file of this size (all holes), close-on-exec, which can neither shrink nor
// grow; where there can be none (RLIMIT_FSIZE, no memfd_create), one that stands for a segment.
int create_memory_file(const char* name, uint64_t size);
int duplicate_fd(int fd);  // close-on-exec; throws OsError
bool identify(int fd, FileIdentity* out) noexcept;
void close_fd(int fd) noexcept;

// A lock on one byte of the file behind `fd`, taken through an opening of its own, whose
// descriptor is returned: the lock lasts until all processes that have inherited that descriptor
// have closed it, exec'd or died. -1 with errno: it cannot be had (no /proc, no descriptor left).
int lock_byte(int fd, uint64_t offset) noexcept;
// Is it known that no opening but fd's own has that byte locked?
bool byte_is_free(int fd, uint64_t offset) noexcept;

// How much more address space this process may have (RLIMIT_AS); UINT64_MAX: no limit.
uint64_t address_space_left() noexcept;

// Maps the file shared (or private), excluded from core dumps; `at` != nullptr replaces what is
// mapped there. nullptr with errno when it cannot be done.
std::byte* map_file(int fd, uint64_t offset, uint64_t size, bool shared,
                    void* at = nullptr) noexcept;
// Can a mapping of this size be had? (address space, RLIMIT_AS)
bool can_reserve(uint64_t size) noexcept;
void unmap(void* at, uint64_t size) noexcept;

// Makes sure that memory lies behind the range; contents are kept. False with errno (ENOSPC,
// ENOMEM, ...).
bool reserve_file_range(int fd, uint64_t offset, uint64_t size) noexcept;
// The same through a mapping, when the descriptor is lost or is a segment's: touches every page.
bool populate(void* at, uint64_t size) noexcept;
// Gives the memory behind a shared mapping back to the system; it reads as zero afterwards.
bool punch(void* at, uint64_t size) noexcept;
// Private memory with the same contents, to be put in place of the range or unmapped; nullptr with
// errno.
void* copy_of(const void* at, uint64_t size) noexcept;
// Replaces the mapping at `at` by such a copy. False with errno: the copy is still where it was.
bool put_in_place(void* copy, uint64_t size, void* at) noexcept;
// Makes every access to the range fault. False with errno.
bool forbid(void* at, uint64_t size) noexcept;
// How many mappings the kernel lets a process have (vm.max_map_count).
uint64_t most_mappings() noexcept;
// Asks for huge pages behind a warm range now (MADV_COLLAPSE, Linux 6.1); false where it cannot be
// had.
bool collapse(void* at, uint64_t size) noexcept;

}  // namespace shoal::os
