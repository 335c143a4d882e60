// SPDX-License-Identifier: Apache-2.0
#include "os/stream.hpp"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "os/clock.hpp"
#include "os/error.hpp"

namespace shoal::os {

static_assert(kFrameBytes <= PIPE_BUF);

namespace {

// For kernels without non-blocking calls for pipes. A writer holds the frame lock, so room that
// poll() has seen is still there for its write; likewise for a reader.
bool is_ready_now(int fd, short events) noexcept {
  pollfd entry{fd, events, 0};
  return poll(&entry, 1, 0) > 0;
}

bool is_unsupported(int error) noexcept { return error == EOPNOTSUPP || error == ENOSYS; }

ssize_t pipe_write(int fd, const iovec* parts) noexcept {
  const ssize_t wrote = pwritev2(fd, parts, 2, -1, RWF_NOWAIT);
  if (wrote >= 0 || !is_unsupported(errno)) return wrote;
  if (is_ready_now(fd, POLLOUT)) return writev(fd, parts, 2);
  errno = EAGAIN;
  return -1;
}

ssize_t socket_write(int fd, iovec* parts) noexcept {
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

ssize_t pipe_read(int fd, void* to, size_t size) noexcept {
  const iovec part{to, size};
  const ssize_t got = preadv2(fd, &part, 1, -1, RWF_NOWAIT);
  if (got >= 0 || !is_unsupported(errno)) return got;
  if (is_ready_now(fd, POLLIN)) return read(fd, to, size);
  errno = EAGAIN;
  return -1;
}

}  // namespace

void stream_open(bool both_ways, int* first, int* second) {
  int ends[2];
  if (both_ways) {
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
      throw OsError("socketpair", errno, "a pipe");
    }
  } else if (pipe2(ends, O_CLOEXEC) != 0) {
    throw OsError("pipe2", errno, "a pipe");
  }
  *first = ends[0];
  *second = ends[1];
}

void stream_close(int fd) noexcept { close(fd); }

Moved stream_write(int fd, bool socket, const void* head, size_t head_size, const void* body,
                   size_t body_size) {
  iovec parts[2] = {{const_cast<void*>(head), head_size}, {const_cast<void*>(body), body_size}};
  ssize_t wrote;
  do {
    wrote = socket ? socket_write(fd, parts) : pipe_write(fd, parts);
  } while (wrote < 0 && errno == EINTR);
  if (wrote >= 0) return Moved::done;
  if (errno == EAGAIN) return Moved::would_block;
  if (errno == EPIPE || errno == ECONNRESET) return Moved::ended;
  throw OsError("write", errno, "a pipe");
}

Moved stream_read(int fd, bool socket, void* to, size_t size, size_t* got) {
  ssize_t count;
  do {
    count = socket ? recv(fd, to, size, MSG_DONTWAIT) : pipe_read(fd, to, size);
  } while (count < 0 && errno == EINTR);
  *got = count > 0 ? static_cast<size_t>(count) : 0;
  if (count > 0) return Moved::done;
  if (count == 0) return Moved::ended;
  if (errno == EAGAIN) return Moved::would_block;
  throw OsError("read", errno, "a pipe");
}

size_t stream_queued(int fd) noexcept {
  int count = 0;
  return ioctl(fd, FIONREAD, &count) == 0 && count > 0 ? static_cast<size_t>(count) : 0;
}

size_t stream_unread(int fd, bool socket) noexcept {
  int count = 0;
  return ioctl(fd, socket ? SIOCOUTQ : FIONREAD, &count) == 0 && count > 0
             ? static_cast<size_t>(count)
             : 0;
}

bool stream_broken(int fd) {
  if (fd < 0) throw OsError("poll", EBADF, "a pipe");
  return is_ready_now(fd, 0);  // poll() always reports POLLERR and POLLHUP
}

Readiness stream_wait(int fd, bool to_write, int64_t deadline_ns) {
  if (fd < 0) throw OsError("poll", EBADF, "a pipe");
  pollfd entry{fd, static_cast<short>(to_write ? POLLOUT : POLLIN), 0};
  timespec left{};
  if (deadline_ns > 0) {
    const int64_t left_ns = deadline_ns - monotonic_ns();
    if (left_ns > 0) left = {left_ns / 1'000'000'000, left_ns % 1'000'000'000};
  }
  const int count = ppoll(&entry, 1, deadline_ns < 0 ? nullptr : &left, nullptr);
  if (count > 0) {
    if ((entry.revents & POLLNVAL) == 0) return Readiness::ready;
    throw OsError("poll", EBADF, "a pipe");
  }
  if (count == 0) return Readiness::timed_out;
  if (errno == EINTR) return Readiness::interrupted;
  throw OsError("poll", errno, "a pipe");
}

}  // namespace shoal::os
