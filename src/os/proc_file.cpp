// SPDX-License-Identifier: Apache-2.0
#include "os/proc_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

namespace shoal::os {

long read_small_file(const char* path, char* buffer, size_t size) noexcept {
  int fd;
  do fd = ::open(path, O_RDONLY | O_CLOEXEC);
  while (fd < 0 && errno == EINTR);
  if (fd < 0) return -1;
  size_t length = 0;
  while (length + 1 < size) {
    const ssize_t got = ::read(fd, buffer + length, size - 1 - length);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      const int error = errno;
      ::close(fd);
      errno = error;
      return -1;
    }
    if (got == 0) break;
    length += static_cast<size_t>(got);
  }
  ::close(fd);
  buffer[length] = '\0';
  return static_cast<long>(length);
}

void make_path(char* buffer, size_t size, const char* prefix, long number,
               const char* suffix) noexcept {
  size_t used = 0;
  const auto put = [&](char c) {
    if (used + 1 < size) buffer[used++] = c;
  };
  for (const char* c = prefix; *c != '\0'; ++c) put(*c);
  char digits[24];
  int count = 0;
  do digits[count++] = static_cast<char>('0' + number % 10);
  while ((number /= 10) > 0);
  while (count > 0) put(digits[--count]);
  for (const char* c = suffix; *c != '\0'; ++c) put(*c);
  buffer[used] = '\0';
}

}  // namespace shoal::os
