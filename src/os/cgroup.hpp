// SPDX-License-Identifier: Apache-2.0
//
// What the cgroups (v1 and v2) that are visible from here allow: memory and CPU. Reads files only;
// allocates; never throws; what cannot be read counts as "no limit". `root` is put before every
// path, for tests on fake trees.
//
// 1. A limit binds along the whole path: the least over the process's own group and all its visible
//    parents holds.
// 2. A container's limit that was set on an invisible parent (a pod) cannot be seen here.
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

// The hierarchy that carries `controller` ("memory", "cpu"). Empty when there is none.
CgroupPath find_cgroup(const std::string& controller, const std::string& root = "");

// CPUs that the quota grants, e.g. 1.5; 0: no quota.
double cpu_quota(const CgroupPath& path);

struct MemoryLimit {
  uint64_t limit = kUnlimited;  // bytes; least over the path, and the machine's RAM
  // bytes that can still be taken: the least of (limit - usage + inactive file pages) over the
  // path, and the machine's MemAvailable
  uint64_t headroom = kUnlimited;
  std::string which;  // who sets the least headroom: a cgroup's file, or "the machine's memory"
};

MemoryLimit memory_limit(const CgroupPath& path, const std::string& root = "");

// How often the OOM killer struck in the process's own group; 0 when not known.
uint64_t oom_kills(const CgroupPath& path);

}  // namespace shoal::os
