// SPDX-License-Identifier: Apache-2.0
//
// Datagram sockets in the abstract name space: a way to make a file descriptor of another process
// readable that leaves nothing behind when either dies. Any thread. Never blocks.
// Sockets are close-on-exec and non-blocking. Names are visible to all users of the same network
// name space; a datagram carries no information, so all a stranger can do is ring in vain.
// Design: docs/design/os.md
#pragma once

#include <cstdint>

namespace shoal::os {

// A socket bound to the name; -1 when somebody has that name. Throws OsError.
int datagram_bind(const char* name);

enum class Rung {
  yes,
  already,  // the other side has not looked since
  nobody,   // no socket has that name
  failed,   // no socket to be had here, or not allowed
};

// Sends one empty datagram.
Rung datagram_ring(const char* name) noexcept;

// Takes all datagrams out; false when there was none.
bool datagram_drain(int fd) noexcept;

void datagram_close(int fd) noexcept;

uint64_t random_bits() noexcept;

}  // namespace shoal::os
