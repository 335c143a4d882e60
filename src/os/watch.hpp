// SPDX-License-Identifier: Apache-2.0
//
// Watches other processes: a descriptor that becomes readable once a process has ended, and signals
// for the process behind such a descriptor. It is a pidfd where the kernel has them; else (Linux
// before 5.3, sandboxes that forbid the call) the read end of a pipe, and a thread of this process,
// the looker, checks the process every kLookMs. Any thread may call these functions.
//
// 1. The looker runs while a process is watched. It runs no user code, takes no signals and
//    allocates nothing, so a fork at any moment is safe. A fork's child has no looker; the parent's
//    goes on watching for both, since their descriptors share a pipe.
// 2. Without pidfds, another process that got the watched process's id could be mistaken for it (if
//    it is no child of the caller). So the start time is compared where /proc has it.
// Design: docs/design/os.md
#pragma once

#include <sys/types.h>

namespace shoal::os {

inline constexpr int kLookMs = 10;
inline constexpr int kMostWatched = 256;  // by the looker of one process

// A close-on-exec descriptor; -1 with errno: ESRCH if there is no such process.
int watch_process(pid_t pid) noexcept;
// watch_process() by the looker, without a pidfd.
int watch_by_looking(pid_t pid) noexcept;

// Sends a signal to process `pid`, which `watched` watches, unless it has ended. 0, or -1 with
// errno.
int signal_watched(int watched, pid_t pid, int signal) noexcept;

}  // namespace shoal::os
