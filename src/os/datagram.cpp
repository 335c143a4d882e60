// SPDX-License-Identifier: Apache-2.0
#include "os/datagram.hpp"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "os/clock.hpp"
#include "os/error.hpp"

namespace shoal::os {

namespace {

struct Address {
  sockaddr_un address{};
  socklen_t size = 0;
};

// An abstract address: the first byte of the path is 0, and `size` tells where the name ends.
Address address_of(const char* name) noexcept {
  Address result;
  result.address.sun_family = AF_UNIX;
  const size_t length = strnlen(name, sizeof result.address.sun_path - 1);
  memcpy(result.address.sun_path + 1, name, length);
  result.size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + length);
  return result;
}

int open_socket() noexcept { return socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0); }

}  // namespace

int datagram_bind(const char* name) {
  const int fd = open_socket();
  if (fd < 0) throw OsError("socket", errno, "datagram");
  const Address to = address_of(name);
  if (bind(fd, reinterpret_cast<const sockaddr*>(&to.address), to.size) == 0) return fd;
  const int error = errno;
  close(fd);
  if (error == EADDRINUSE) return -1;
  throw OsError("bind", error, name);
}

Rung datagram_ring(const char* name) noexcept {
  // Opens a socket for each call. A socket that is kept open would save 1 us, but user code could
  // close its number and reuse it.
  const int fd = open_socket();
  if (fd < 0) return Rung::failed;
  const Address to = address_of(name);
  const ssize_t sent =
      sendto(fd, "", 0, MSG_NOSIGNAL, reinterpret_cast<const sockaddr*>(&to.address), to.size);
  const int error = errno;
  close(fd);
  if (sent >= 0) return Rung::yes;
  if (error == ECONNREFUSED) return Rung::nobody;
  return error == EAGAIN ? Rung::already : Rung::failed;
}

bool datagram_drain(int fd) noexcept {
  bool any = false;
  char byte = 0;
  for (;;) {
    const ssize_t got = recv(fd, &byte, sizeof byte, 0);
    if (got >= 0) {
      any = true;
    } else if (errno != EINTR) {
      return any;
    }
  }
}

void datagram_close(int fd) noexcept { close(fd); }

uint64_t random_bits() noexcept {
  uint64_t bits = 0;
  if (getrandom(&bits, sizeof bits, GRND_NONBLOCK) != sizeof bits) {
    bits = static_cast<uint64_t>(monotonic_ns()) ^ static_cast<uint64_t>(getpid()) << 40;
  }
  return bits;
}

}  // namespace shoal::os
