// SPDX-License-Identifier: Apache-2.0
#include "os/cgroup.hpp"

#include <sys/sysinfo.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>

namespace shoal::os {

namespace {

std::string read_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// A number, or `otherwise` when the file is missing or holds a word such as "max".
uint64_t read_number(const std::string& path, uint64_t otherwise) {
  const std::string line = read_line(path);
  if (line.empty() || line[0] < '0' || line[0] > '9') return otherwise;
  return std::strtoull(line.c_str(), nullptr, 10);
}

// The value after `key` in a file of "key value" lines (memory.stat, memory.events, meminfo).
uint64_t read_key(const std::string& path, const std::string& key, uint64_t otherwise) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.compare(0, key.size(), key) == 0 && line.size() > key.size() &&
        line[key.size()] == ' ')
      return std::strtoull(line.c_str() + key.size(), nullptr, 10);
  }
  return otherwise;
}

bool lists(const std::string& comma_separated, const std::string& word) {
  std::istringstream stream(comma_separated);
  for (std::string item; std::getline(stream, item, ',');)
    if (item == word) return true;
  return false;
}

// The process's group in the hierarchy: /proc/self/cgroup lines are "id:controllers:path".
std::string own_group(const std::string& root, const std::string& controller, bool v2) {
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (v2 ? controllers.empty() : lists(controllers, controller)) return line.substr(second + 1);
  }
  return {};
}

struct Mount {
  std::string root;   // the part of the hierarchy that is mounted
  std::string point;  // the folder where it is mounted
};

// /proc/self/mountinfo: "id parent device root point options [tags] - type source super-options".
Mount find_mount(const std::string& root, const std::string& controller, bool v2) {
  std::ifstream file(root + "/proc/self/mountinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    std::istringstream left(line.substr(0, dash));
    std::istringstream right(line.substr(dash + 3));
    std::string skip, type, source, options;
    Mount mount;
    left >> skip >> skip >> skip >> mount.root >> mount.point;
    right >> type >> source >> options;
    if (v2 ? type == "cgroup2" : type == "cgroup" && lists(options, controller)) return mount;
  }
  return {};
}

CgroupPath walk_up(const std::string& root, const Mount& mount, std::string group, bool v2) {
  if (mount.root != "/" && group.compare(0, mount.root.size(), mount.root) == 0)
    group.erase(0, mount.root.size());
  else if (mount.root != "/" || group.find("/..") != std::string::npos)
    group.clear();  // our group is outside the mounted part: only the mounted part is visible
  const std::string top = root + mount.point;
  CgroupPath path;
  path.v2 = v2;
  while (!group.empty() && group != "/") {
    path.directories.push_back(top + group);
    group.erase(group.rfind('/'));
  }
  path.directories.push_back(top);
  return path;
}

constexpr uint64_t kNoLimitV1 = uint64_t{1} << 62;  // v1 writes "no limit" as a number near 2^63

struct Memory {
  uint64_t total = kUnlimited;
  uint64_t available = kUnlimited;
};

// For when /proc is not mounted. Does not count cached pages as available: sysinfo() does not tell
// how many of them the kernel could reclaim.
Memory memory_without_proc() noexcept {
  struct sysinfo now{};
  if (sysinfo(&now) != 0) return {};
  const uint64_t unit = now.mem_unit;
  return {now.totalram * unit, (now.freeram + now.bufferram) * unit};
}

}  // namespace

CgroupPath find_cgroup(const std::string& controller, const std::string& root) {
  const Mount v1 = find_mount(root, controller, false);
  if (!v1.point.empty()) return walk_up(root, v1, own_group(root, controller, false), false);
  const Mount v2 = find_mount(root, controller, true);
  if (!v2.point.empty()) return walk_up(root, v2, own_group(root, controller, true), true);
  return {};
}

double cpu_quota(const CgroupPath& path) {
  double least = 0;
  for (const std::string& directory : path.directories) {
    double quota = 0;
    double period = 0;
    if (path.v2) {
      std::istringstream(read_line(directory + "/cpu.max")) >> quota >> period;
    } else {
      quota = static_cast<double>(read_number(directory + "/cpu.cfs_quota_us", 0));
      period = static_cast<double>(read_number(directory + "/cpu.cfs_period_us", 0));
    }
    if (quota > 0 && period > 0 && (least == 0 || quota / period < least)) least = quota / period;
  }
  return least;
}

MemoryLimit memory_limit(const CgroupPath& path, const std::string& root) {
  const std::string meminfo = root + "/proc/meminfo";
  const Memory machine = root.empty() ? memory_without_proc() : Memory{};
  MemoryLimit result;
  result.limit = read_key(meminfo, "MemTotal:", machine.total / 1024) * 1024;
  result.headroom = read_key(meminfo, "MemAvailable:", machine.available / 1024) * 1024;
  result.which = "the machine's memory";
  for (const std::string& directory : path.directories) {
    const std::string file = directory + (path.v2 ? "/memory.max" : "/memory.limit_in_bytes");
    const uint64_t limit = read_number(file, kUnlimited);
    if (limit >= kNoLimitV1) continue;
    const uint64_t usage =
        read_number(directory + (path.v2 ? "/memory.current" : "/memory.usage_in_bytes"), 0);
    const uint64_t inactive =
        read_key(directory + "/memory.stat", path.v2 ? "inactive_file" : "total_inactive_file", 0);
    const uint64_t occupied = usage - std::min(usage, inactive);
    const uint64_t headroom = limit - std::min(limit, occupied);
    result.limit = std::min(result.limit, limit);
    if (headroom >= result.headroom) continue;
    result.headroom = headroom;
    result.which = file.substr(root.size());
  }
  return result;
}

uint64_t oom_kills(const CgroupPath& path) {
  if (path.directories.empty()) return 0;
  const std::string& own = path.directories.front();
  return read_key(own + (path.v2 ? "/memory.events" : "/memory.oom_control"), "oom_kill", 0);
}

}  // namespace shoal::os
