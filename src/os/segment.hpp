// SPDX-License-Identifier: Apache-2.0
//
// Memory for a session where no file of its size can be made: under `ulimit -f` (RLIMIT_FSIZE),
// which holds for memory files too, and without memfd_create. The memory is a System V segment,
// which no such limit counts; an empty file that carries its number stands for it wherever a
// memory file would be passed on: os/memory.hpp accepts either. Any thread; nothing blocks.
//
// 1. The file is empty; its modification time is {number of the segment, kMark nanoseconds}. So it
//    can be made even where the limit is 0.
// 2. The segment is marked for removal as soon as this process has it attached: the kernel frees
//    it when the last process that has it attached is gone. Linux lets others attach until then.
// 3. A process that is killed between making and marking leaves a segment behind, without memory.
//    Its key begins with kKeyPrefix, and the next process that makes one removes it.
// Design: docs/design/os.md
#pragma once

#include <cstddef>
#include <cstdint>

namespace shoal::os {

inline constexpr uint32_t kKeyPrefix = 0x5A11'0000;  // the lower 16 bits are random

// Makes a segment of this size and writes its number into the empty file. Throws OsError.
void make_segment(int file, uint64_t size);

// The size of the segment for which the file stands; 0: it stands for none, or that is gone.
uint64_t segment_size(int file) noexcept;

// As map_file() for such a file. A private view is a copy.
std::byte* map_segment(int file, uint64_t offset, uint64_t size, bool shared, void* at) noexcept;

}  // namespace shoal::os
