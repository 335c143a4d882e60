// SPDX-License-Identifier: Apache-2.0
#include "os/limits.hpp"

#include <sys/resource.h>

#include <cerrno>
#include <cstdint>

namespace shoal::os {

namespace {

// 0: unlimited
uint64_t limit_of(__rlimit_resource resource) {
  rlimit limit{};
  if (getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return 0;
  return limit.rlim_cur;
}

}  // namespace

std::string limit_behind(int error_number) {
  switch (error_number) {
    case EMFILE:
      return "this process may have " + std::to_string(limit_of(RLIMIT_NOFILE)) +
             " files open (ulimit -n, RLIMIT_NOFILE): raise that, or have fewer workers, queues and"
             " files at once";
    case ENFILE:
      return "the machine may have no more files open (fs.file-max): raise that, or close some";
    case EAGAIN: {
      const uint64_t limit = limit_of(RLIMIT_NPROC);
      const std::string own = limit == 0 ? "a control group may have no more processes"
                                         : "this user may have " + std::to_string(limit) +
                                               " processes and threads (ulimit -u, RLIMIT_NPROC),"
                                               " or a control group no more of them";
      return own + " (pids.max): raise that, or use fewer workers";
    }
    case ENOMEM: {
      const uint64_t limit = limit_of(RLIMIT_AS);
      if (limit == 0) return "";
      return "this process may have " + std::to_string(limit >> 20) +
             " MiB of address space (ulimit -v, RLIMIT_AS): raise that";
    }
    default:
      return "";
  }
}

}  // namespace shoal::os
