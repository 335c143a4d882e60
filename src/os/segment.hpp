// SPDX-License-Identifier: Apache-2.0
//
// Memory for a session where no memory file of its size can be made: under `ulimit -f`
// (RLIMIT_FSIZE), which applies to memory files too, and without memfd_create. The memory is a
// System V segment, to which that limit does not apply. An empty file that carries the segment's
// number is passed on in place of a memory file, and os/memory.hpp accepts either. Any thread may
// call these functions; they never block.
//
// 1. The file is empty; its modification time is {number of the segment, kMark nanoseconds}. So it
//    can be made even if the limit is 0.
// 2. The segment is marked for removal as soon as this process has attached it: the kernel frees it
//    when the last process that has it attached is gone. Until then Linux lets other processes
//    attach it.
// 3. A process that is killed between creating and marking leaves a segment behind, without memory.
//    Its key begins with kKeyPrefix; the next process that makes a segment removes it.
// Design: docs/design/os.md
#pragma once

#include <cstddef>
#include <cstdint>

namespace shoal::os {

inline constexpr uint32_t kKeyPrefix = 0x5A11'0000;  // the lower 16 bits are random

// Makes a segment of this size and writes its number into the empty file. Throws OsError.
void make_segment(int file, uint64_t size);

// The size of the segment that the file names; 0: the file names none, or the segment is gone.
uint64_t segment_size(int file) noexcept;

// map_file() for a file that names a segment. A private view is a copy.
std::byte* map_segment(int file, uint64_t offset, uint64_t size, bool shared, void* at) noexcept;

}  // namespace shoal::os
