// SPDX-License-Identifier: Apache-2.0
//
// Cgroup facts on fake trees of files.
#include "os/cgroup.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "os/cpus.hpp"

namespace shoal::os {
namespace {

class FakeTree {
 public:
  FakeTree() : root_(std::filesystem::temp_directory_path() / "shoal-cgroup-XXXXXX") {
    std::string pattern = root_;
    root_ = mkdtemp(pattern.data());
    write("/proc/meminfo", "MemTotal:       8000 kB\nMemFree: 1 kB\nMemAvailable:   6000 kB\n");
  }
  ~FakeTree() { std::filesystem::remove_all(root_); }
  void write(const std::string& path, const std::string& text) const {
    std::filesystem::create_directories(std::filesystem::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text;
  }
  const std::string& root() const { return root_; }

 private:
  std::string root_;
};

constexpr char kV2Mount[] = "30 25 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
constexpr char kV1Mounts[] =
    "30 25 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n";

TEST(CgroupV2, TheTightestOfAllVisibleParentsHolds) {
  FakeTree tree;
  tree.write("/proc/self/mountinfo", kV2Mount);
  tree.write("/proc/self/cgroup", "0::/a/b\n");
  tree.write("/sys/fs/cgroup/a/b/memory.max", "max\n");
  tree.write("/sys/fs/cgroup/a/memory.max", "2000000\n");
  tree.write("/sys/fs/cgroup/a/memory.current", "1500000\n");
  tree.write("/sys/fs/cgroup/a/memory.stat", "anon 5\ninactive_file 100000\n");
  tree.write("/sys/fs/cgroup/a/b/cpu.max", "150000 100000\n");
  tree.write("/sys/fs/cgroup/a/cpu.max", "max 100000\n");
  tree.write("/sys/fs/cgroup/a/b/memory.events", "low 0\noom 3\noom_kill 2\n");
  const CgroupPath memory = find_cgroup("memory", tree.root());
  ASSERT_TRUE(memory.v2);
  ASSERT_EQ(memory.directories.size(), 3U);
  const MemoryLimit limit = memory_limit(memory, tree.root());
  EXPECT_EQ(limit.limit, 2'000'000U);
  EXPECT_EQ(limit.headroom, 600'000U);
  EXPECT_EQ(limit.which, "/sys/fs/cgroup/a/memory.max");
  EXPECT_DOUBLE_EQ(cpu_quota(find_cgroup("cpu", tree.root())), 1.5);
  EXPECT_EQ(oom_kills(memory), 2U);
}

TEST(CgroupV1, IsReadFromEachControllersOwnHierarchy) {
  FakeTree tree;
  tree.write("/proc/self/mountinfo", kV1Mounts);
  tree.write("/proc/self/cgroup", "5:memory:/job\n4:cpu,cpuacct:/quota\n0::/\n");
  tree.write("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "1000000\n");
  tree.write("/sys/fs/cgroup/memory/job/memory.usage_in_bytes", "900000\n");
  tree.write("/sys/fs/cgroup/memory/job/memory.stat",
             "inactive_file 1\ntotal_inactive_file 50000\n");
  tree.write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  tree.write("/sys/fs/cgroup/memory/job/memory.oom_control",
             "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n");
  tree.write("/sys/fs/cgroup/cpu,cpuacct/quota/cpu.cfs_quota_us", "50000\n");
  tree.write("/sys/fs/cgroup/cpu,cpuacct/quota/cpu.cfs_period_us", "100000\n");
  tree.write("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
  const CgroupPath memory = find_cgroup("memory", tree.root());
  EXPECT_FALSE(memory.v2);
  EXPECT_EQ(memory_limit(memory, tree.root()).headroom, 150'000U);
  EXPECT_EQ(oom_kills(memory), 1U);
  EXPECT_DOUBLE_EQ(cpu_quota(find_cgroup("cpu", tree.root())), 0.5);
  EXPECT_EQ(cpu_facts(tree.root()).usable, 1);
}

TEST(Cgroup, InAContainerTheMountedPartIsTheRoot) {
  FakeTree tree;
  tree.write("/proc/self/mountinfo",
             "30 25 0:26 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n");
  tree.write("/proc/self/cgroup", "5:memory:/docker/abc/inner\n");
  tree.write("/sys/fs/cgroup/memory/inner/memory.limit_in_bytes", "5000\n");
  EXPECT_EQ(memory_limit(find_cgroup("memory", tree.root()), tree.root()).limit, 5000U);
  tree.write("/proc/self/cgroup", "5:memory:/elsewhere\n");
  EXPECT_EQ(find_cgroup("memory", tree.root()).directories.size(), 1U);
}

TEST(Cgroup, WithoutOneTheMachinesMemoryIsTheLimit) {
  FakeTree tree;
  const CgroupPath none = find_cgroup("memory", tree.root());
  EXPECT_TRUE(none.directories.empty());
  const MemoryLimit limit = memory_limit(none, tree.root());
  EXPECT_EQ(limit.limit, 8000U * 1024);
  EXPECT_EQ(limit.headroom, 6000U * 1024);
  EXPECT_EQ(limit.which, "the machine's memory");
  EXPECT_DOUBLE_EQ(cpu_quota(find_cgroup("cpu", tree.root())), 0);
  EXPECT_EQ(oom_kills(none), 0U);
}

TEST(Cpus, AtLeastOneIsUsable) {
  const CpuFacts facts = cpu_facts();
  EXPECT_GE(facts.usable, 1);
  EXPECT_LE(facts.usable, facts.affinity);
}

}  // namespace
}  // namespace shoal::os
