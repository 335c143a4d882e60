// SPDX-License-Identifier: Apache-2.0
//
// Bell pipes: a pipe that several processes share, of which only "empty or not" matters. The
// process that has it open publishes the place (process and descriptor number); other processes
// open it by /proc/PID/fd. Any thread may call these functions. They never block, and only
// make_bell_pipe() throws.
//
// A descriptor number is never trusted, since user code may have closed it and reused it: each pipe
// has an identity, which is checked before a byte is read or written.
// Design: docs/design/os.md
#pragma once

#include <sys/types.h>

#include <cstdint>

namespace shoal::os {

// Where a pipe is open.
struct Place {
  pid_t process;
  int number;
};

enum class Found {
  yes,
  gone,         // another file is open at the place, or there is no such process
  unreachable,  // EMFILE, ENFILE, EACCES: the pipe may be there
};

// One descriptor for both ends, so that the pipe never hangs up; close-on-exec and non-blocking.
// Throws OsError, also if other processes could not open the pipe; the message then says why.
int make_bell_pipe();

// Device and inode; 0: no pipe.
uint64_t pipe_identity(int fd) noexcept;

// Opens the pipe of this identity at the place.
Found open_pipe_at(const Place& place, uint64_t identity, int* fd) noexcept;

bool put_byte(int fd) noexcept;    // true: there is a byte in the pipe
bool take_bytes(int fd) noexcept;  // reads until the pipe is empty; true: it is empty

// put_byte() and take_bytes() for a process that cannot open another file (RLIMIT_NOFILE): a thread
// with its own descriptor table opens the pipe at the place. False: that failed.
bool put_byte_at(const Place& place, uint64_t identity) noexcept;
bool take_bytes_at(const Place& place, uint64_t identity) noexcept;

}  // namespace shoal::os
