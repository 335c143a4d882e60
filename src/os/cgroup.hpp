// SPDX-License-Identifier: Apache-2.0
//
// The memory and CPU limits of the cgroups (v1 and v2) that this process can see. Only reads files;
// allocates; never throws except std::bad_alloc; a limit that cannot be read counts as "no limit".
// `root` is prepended to every path, for tests on fake trees.
//
// 1. The effective limit is the lowest one of the process's own group and all its visible parents.
// 2. A limit that is set on an invisible parent (a pod's, seen from a container) is not found.
// Design: docs/design/os.md
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace shoal::os {

inline constexpr uint64_t kUnlimited = UINT64_MAX;

// Directories from the process's own group up to the visible root of the hierarchy.
struct CgroupPath {
  std::vector<std::string> directories;
  bool v2 = false;
};

// The process's path in the hierarchy that has `controller` ("memory", "cpu"). Empty if there is
// none.
CgroupPath find_cgroup(const std::string& controller, const std::string& root = "");

// CPUs that the quota grants, for example 1.5; 0: no quota.
double cpu_quota(const CgroupPath& path);

struct MemoryLimit {
  uint64_t limit = kUnlimited;  // bytes: the lowest limit of the path and the machine's RAM
  // bytes that can still be allocated: the lowest of (limit - usage + inactive file pages) of the
  // path and the machine's MemAvailable
  uint64_t headroom = kUnlimited;
  std::string which;  // what sets the headroom: a cgroup's file, or "the machine's memory"
};

MemoryLimit memory_limit(const CgroupPath& path, const std::string& root = "");

// How often the OOM killer has killed in the process's own group; 0 if that is not known.
uint64_t oom_kills(const CgroupPath& path);

}  // namespace shoal::os
