// SPDX-License-Identifier: Apache-2.0
#include "os/memory_search.hpp"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

#include <memory>
#include <string>

#include "os/error.hpp"

namespace shoal::os {

std::vector<int> open_memory_files_of(pid_t pid, const char* name) {
  const std::string folder = "/proc/" + std::to_string(pid) + "/fd";
  const std::string wanted = std::string("/memfd:") + name;
  const std::unique_ptr<DIR, int (*)(DIR*)> list(opendir(folder.c_str()), &closedir);
  if (list == nullptr) throw OsError("opendir", errno, folder);
  std::vector<int> found;
  while (const dirent* const entry = readdir(list.get())) {
    const std::string path = folder + "/" + entry->d_name;
    char target[PATH_MAX];
    const ssize_t size = readlink(path.c_str(), target, sizeof target);
    if (size <= 0) continue;
    const std::string link(target, static_cast<size_t>(size));
    if (link != wanted && link != wanted + " (deleted)") continue;
    const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
    if (fd >= 0) found.push_back(fd);
  }
  return found;
}

void close_descriptor(int fd) noexcept { close(fd); }

}  // namespace shoal::os
