// SPDX-License-Identifier: Apache-2.0
//
// Datagram sockets in the abstract name space: one process makes a file descriptor of another
// process readable, and nothing is left behind when either dies. Any thread may call these
// functions; they never block. Sockets are close-on-exec and non-blocking. All users of the same
// network name space can see the names. A datagram carries no information, so another user can only
// cause a needless wake-up.
// Design: docs/design/os.md
#pragma once

#include <cstdint>

namespace shoal::os {

// A socket bound to the name; -1 if the name is taken. Throws OsError.
int datagram_bind(const char* name);

enum class Rung {
  yes,
  already,  // the socket's queue is full: the receiver has not drained it yet
  nobody,   // no socket has that name
  failed,   // no socket can be opened here, or sending is not allowed
};

// Sends one empty datagram.
Rung datagram_ring(const char* name) noexcept;

// Receives all queued datagrams; false if there were none.
bool datagram_drain(int fd) noexcept;

void datagram_close(int fd) noexcept;

uint64_t random_bits() noexcept;

}  // namespace shoal::os
