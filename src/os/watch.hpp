// SPDX-License-Identifier: Apache-2.0
//
// Watching other processes: a descriptor that poll() finds readable once a process has ended, and
// signals for who has one. With the kernel's pidfds where there are any; else (Linux before 5.3,
// sandboxes that forbid the call) a thread of this process looks every kLookMs. Any thread.
//
// 1. The looking thread lives while something is watched. It runs no user code, takes no signals,
//    and allocates nothing, so a fork at any moment is safe; a fork's child has no such thread,
//    and what was watched before the fork stays the parent's: it is readable there and in the
//    child.
// 2. Without pidfds a process that is no child of the caller might be mistaken for another that
//    got its number; the start time, where /proc tells it, is compared.
// Design: docs/design/os.md
#pragma once

#include <sys/types.h>

namespace shoal::os {

inline constexpr int kLookMs = 10;
inline constexpr int kMostWatched = 256;  // by looking, in one process

// Close-on-exec; -1 with errno: ESRCH when there is no such process.
int watch_process(pid_t pid) noexcept;
// As watch_process() where there are no pidfds.
int watch_by_looking(pid_t pid) noexcept;

// Sends the process that `watched` watches a signal, unless it has ended: 0, or -1 with errno.
int signal_watched(int watched, pid_t pid, int signal) noexcept;

}  // namespace shoal::os
