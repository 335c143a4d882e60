// SPDX-License-Identifier: Apache-2.0
//
// Finding the memory file of a session in another process of the same user: by the links in its
// /proc/PID/fd. The kernel checks the permission. Any thread; may allocate.
// Design: docs/design/os.md
#pragma once

#include <sys/types.h>

#include <vector>

namespace shoal::os {

// Descriptors, opened here (close-on-exec), of the memory files called `name` that the process has
// open; none when there is none. Throws OsError when the process cannot be looked at.
std::vector<int> open_memory_files_of(pid_t pid, const char* name);

void close_descriptor(int fd) noexcept;

}  // namespace shoal::os
