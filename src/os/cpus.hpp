// SPDX-License-Identifier: Apache-2.0
//
// How many CPUs this process can use: the affinity mask and the cgroup's CPU quota. Reads files;
// allocates.
// Design: docs/design/os.md
#pragma once

#include <string>

namespace shoal::os {

struct CpuFacts {
  int affinity = 1;  // CPUs in this thread's mask
  double quota = 0;  // CPUs that the cgroup grants, 0: no quota
  int usable = 1;    // min(affinity, ceil(quota)), at least 1
};

CpuFacts cpu_facts(const std::string& root = "");
int usable_cpus();

}  // namespace shoal::os
