// SPDX-License-Identifier: Apache-2.0
//
// Pipes as bells: one pipe that several processes share, of which only "empty or not" counts. Who
// has it open says where (process and number), and others open it by /proc/PID/fd. Any thread.
// Nothing here blocks or throws but make_bell_pipe().
//
// A number is never trusted: each pipe is known by its identity, which is looked at before a byte
// is read or written, since user code may have closed the number and opened a file of its own.
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
  gone,         // the place holds something else by now, or there is no such process
  unreachable,  // EMFILE, ENFILE, EACCES: it may be there
};

// One descriptor for both ends, close-on-exec and non-blocking, so that it never hangs up. Throws
// OsError, which says what is missing where other processes could not open it.
int make_bell_pipe();

// Device and inode; 0: no pipe.
uint64_t pipe_identity(int fd) noexcept;

// Opens the pipe of this identity at the place.
Found open_pipe_at(const Place& place, uint64_t identity, int* fd) noexcept;

bool put_byte(int fd) noexcept;    // true: there is a byte in it
bool take_bytes(int fd) noexcept;  // true: all that were in it are taken

// For a process that may open nothing more (RLIMIT_NOFILE): a byte for the pipe at the place, or
// all of them taken out, by a thread with a descriptor table of its own. False: it cannot be done.
bool put_byte_at(const Place& place, uint64_t identity) noexcept;
bool take_bytes_at(const Place& place, uint64_t identity) noexcept;

}  // namespace shoal::os
