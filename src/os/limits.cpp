// SPDX-License-Identifier: Apache-2.0
#include "os/limits.hpp"

#include <sys/resource.h>

#include <cerrno>

namespace shoal::os {

namespace {

// nullopt: unlimited.
std::optional<uint64_t> limit_of(__rlimit_resource resource) {
  rlimit limit{};
  if (getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return std::nullopt;
  return limit.rlim_cur;
}

}  // namespace

std::string open_files_clause(std::optional<uint64_t> limit) {
  const std::string which = limit ? "this process may have " + std::to_string(*limit) +
                                        " files open (ulimit -n, RLIMIT_NOFILE)"
                                  : "this process may have no more files open, although ulimit -n"
                                    " (RLIMIT_NOFILE) is unlimited (fs.nr_open, a sandbox)";
  return which + ": raise that, or use fewer workers, queues and files at the same time";
}

std::string limit_behind(int error_number) {
  switch (error_number) {
    case EMFILE:
      return open_files_clause(limit_of(RLIMIT_NOFILE));
    case ENFILE:
      return "the machine may have no more files open (fs.file-max): raise that, or close some";
    case EAGAIN: {
      const auto limit = limit_of(RLIMIT_NPROC);
      const std::string own = limit ? "this user may have " + std::to_string(*limit) +
                                          " processes and threads (ulimit -u, RLIMIT_NPROC), or"
                                          " the control group has reached its limit"
                                    : "the control group has reached its limit of processes";
      return own + " (pids.max): raise that, or use fewer workers";
    }
    case ENOMEM: {
      const auto limit = limit_of(RLIMIT_AS);
      if (!limit) return "";
      return "this process may have " + std::to_string(*limit >> 20) +
             " MiB of address space (ulimit -v, RLIMIT_AS): raise that";
    }
    default:
      return "";
  }
}

}  // namespace shoal::os
