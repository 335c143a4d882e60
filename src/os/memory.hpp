// SPDX-License-Identifier: Apache-2.0
//
// Memory files and mappings. Functions that create things throw OsError; the others return false
// with errno, so that fork handlers and noexcept code can use them.
//
// 1. reserve_file_range never sends SIGXFSZ or SIGBUS to anybody and works in steps of at most
// kFileStep with
//    signals blocked: older kernels start a whole fallocate over at each signal.
// 2. A file descriptor number is not trusted: user code may close any number and open it anew.
// identify() before use.
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
// Replaces a shared mapping by a private copy without a file descriptor.
bool copy_private(void* at, uint64_t size) noexcept;
// Makes every access to the range fault.
void forbid(void* at, uint64_t size) noexcept;
// Asks for huge pages behind a warm range now (MADV_COLLAPSE, Linux 6.1); false where it cannot be
// had.
bool collapse(void* at, uint64_t size) noexcept;

}  // namespace shoal::os
