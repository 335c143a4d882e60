// SPDX-License-Identifier: Apache-2.0
//
// Finds the memory file of a session in another process of the same user, by the links in its
// /proc/PID/fd. The kernel checks the permission. Any thread may call it; it may allocate.
// Design: docs/design/os.md
#pragma once

#include <sys/types.h>

#include <vector>

namespace shoal::os {

// Opens the memory files called `name` that the process has open, and returns their descriptors in
// this process (close-on-exec). A file that names a segment has no name and is included. Throws
// OsError if the process's descriptors cannot be listed.
std::vector<int> open_memory_files_of(pid_t pid, const char* name);

void close_descriptor(int fd) noexcept;

}  // namespace shoal::os
