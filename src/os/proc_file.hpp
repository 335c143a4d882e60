// SPDX-License-Identifier: Apache-2.0
//
// Reads small files of /proc and /sys without allocating, so that fork handlers may use it. Never
// throws; errno is that of the call that failed. Internal to src/os.
// Design: docs/design/os.md
#pragma once

#include <cstddef>

namespace shoal::os {

// Up to size - 1 bytes of the file, zero-terminated. Returns the length, or -1 with errno set.
long read_small_file(const char* path, char* buffer, size_t size) noexcept;

// "<prefix><number><suffix>" into buffer, zero-terminated (snprintf is not safe in a forked child).
void make_path(char* buffer, size_t size, const char* prefix, long number,
               const char* suffix) noexcept;

}  // namespace shoal::os
