// SPDX-License-Identifier: Apache-2.0
#include "os/cpus.hpp"

#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <cmath>

#include "os/cgroup.hpp"

namespace shoal::os {

namespace {
// The mask may need more than the 1024 bits of cpu_set_t: the kernel then answers EINVAL.
int affinity_count() {
  for (int cpus = 1024; cpus <= 1 << 20; cpus *= 4) {
    cpu_set_t* set = CPU_ALLOC(static_cast<size_t>(cpus));
    if (set == nullptr) return 1;
    const size_t size = CPU_ALLOC_SIZE(static_cast<size_t>(cpus));
    const int result = sched_getaffinity(0, size, set);
    const int count = result == 0 ? CPU_COUNT_S(size, set) : 0;
    CPU_FREE(set);
    if (result == 0) return std::max(count, 1);
    if (errno != EINVAL) return 1;
  }
  return 1;
}
}  // namespace

CpuFacts cpu_facts(const std::string& root) {
  CpuFacts facts;
  facts.affinity = affinity_count();
  facts.quota = cpu_quota(find_cgroup("cpu", root));
  facts.usable = facts.affinity;
  if (facts.quota > 0)
    facts.usable = std::clamp(static_cast<int>(std::ceil(facts.quota - 0.001)), 1, facts.affinity);
  return facts;
}

int usable_cpus() { return cpu_facts().usable; }

}  // namespace shoal::os
