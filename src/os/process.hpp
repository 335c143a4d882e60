// SPDX-License-Identifier: Apache-2.0
//
// Processes: identity (pid and start time), whether one still lives, pidfds. Callable from any
// thread and, as nothing allocates, from fork handlers. Never throws.
//
// 1. Dead means: will never again run an instruction of its program. Zombies, processes all of
//    whose threads are exiting, and processes that are writing a core dump are dead, long before
//    their pidfd says so.
// 2. A stopped process is alive. What cannot be found out (no permission, no /proc) is unknown,
//    never dead.
// Design: docs/design/os.md
#pragma once

#include <sys/types.h>

#include <cstdint>

namespace shoal::os {

enum class Life { alive, dead, unknown };

pid_t own_pid() noexcept;  // asks the kernel every time: right after any kind of fork

// Start of the process in clock ticks since boot (/proc/PID/stat field 22); 0: no such process or
// unknown.
uint64_t start_time(pid_t pid) noexcept;

// A number that changes when the process execs another program (from its memory layout); 0: not
// known. Without address space randomisation it may stay the same.
uint64_t process_image(pid_t pid) noexcept;

// Does the process that had this pid and start time live? start_time 0: whoever has the pid now.
// With an image (not 0) a process that has exec'd since counts as dead: its mappings are gone.
Life process_life(pid_t pid, uint64_t expected_start, uint64_t image = 0) noexcept;

int pidfd_open(pid_t pid) noexcept;  // -1 with errno; EPERM from old profiles reads as ENOSYS
int pidfd_send_signal(int pidfd, int signal) noexcept;  // 0, or -1 with errno
bool pidfd_dead(int pidfd) noexcept;  // readable now: the process is gone, memory torn down

}  // namespace shoal::os
