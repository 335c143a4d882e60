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
#include "os/segment.hpp"

namespace shoal::os {

namespace {

// Can this link be that of a file from create_memory_file(), made with memfd_create or without?
bool may_be_memory(const std::string& link, const std::string& name) {
  const std::string wanted = "/memfd:" + name;
  if (link == wanted || link == wanted + " (deleted)") return true;
  const size_t slash = link.rfind('/');
  return slash != std::string::npos && link.compare(slash, 2, "/#") == 0 &&
         link.ends_with(" (deleted)");
}

}  // namespace

std::vector<int> open_memory_files_of(pid_t pid, const char* name) {
  const std::string folder = "/proc/" + std::to_string(pid) + "/fd";
  const std::unique_ptr<DIR, int (*)(DIR*)> list(opendir(folder.c_str()), &closedir);
  if (list == nullptr) throw OsError("opendir", errno, folder);
  std::vector<int> found;
  while (const dirent* const entry = readdir(list.get())) {
    const std::string path = folder + "/" + entry->d_name;
    char target[PATH_MAX];
    const ssize_t size = readlink(path.c_str(), target, sizeof target);
    if (size <= 0) continue;
    const std::string link(target, static_cast<size_t>(size));
    if (!may_be_memory(link, name)) continue;
    const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
    if (fd < 0) continue;
    if (link.starts_with("/memfd:") || segment_size(fd) != 0) {
      found.push_back(fd);
    } else {
      close(fd);
    }
  }
  return found;
}

void close_descriptor(int fd) noexcept { close(fd); }

}  // namespace shoal::os
