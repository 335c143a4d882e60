// SPDX-License-Identifier: Apache-2.0
//
// Processes: identity (pid and start time), whether a process is alive, pidfds. Callable from any
// thread and, as nothing allocates, from fork handlers. Never throws.
//
// 1. Dead means: will never again run an instruction of its program. Zombies, processes all of
//    whose threads are exiting, and processes that are writing a core dump are dead, long before
//    their pidfd says so.
// 2. A stopped process is alive. If the state of a process or of one of its threads cannot be
//    determined (no permission, no descriptor left, no /proc, or a /proc of another pid namespace,
//    which shows other processes under the same numbers), the process counts as unknown or alive,
//    never as dead.
// Design: docs/design/os.md
#pragma once

#include <sys/types.h>

#include <cstdint>

namespace shoal::os {

enum class Life { alive, dead, unknown };

pid_t own_thread_id() noexcept;  // the kernel's, of at most 22 bits
pid_t own_pid() noexcept;        // asks the kernel each time, so it is right after any kind of fork

// Start of the process in clock ticks since boot (/proc/PID/stat field 22); 0: no such process or
// unknown.
uint64_t start_time(pid_t pid) noexcept;

// A number, made from the process's memory layout, that changes when the process execs another
// program; 0: not known. Without address space randomisation it may stay the same.
uint64_t process_image(pid_t pid) noexcept;

// Is the process with this pid and start time alive? expected_start 0: any process that has the pid
// now. If `image` is not 0, a process with another image has exec'd and counts as dead: its
// mappings are gone.
Life process_life(pid_t pid, uint64_t expected_start, uint64_t image = 0) noexcept;

// A number that identifies this process's pid namespace on this machine; 0: not known.
uint64_t pid_namespace() noexcept;

// Is it certain that this process has no child process, neither running nor zombie?
bool has_no_child() noexcept;

int pidfd_open(pid_t pid) noexcept;  // -1 with errno; EPERM from old profiles reads as ENOSYS
int pidfd_send_signal(int pidfd, int signal) noexcept;  // 0, or -1 with errno
bool pidfd_dead(int pidfd) noexcept;  // is it readable: has the process ended, its memory freed?

}  // namespace shoal::os
