// SPDX-License-Identifier: Apache-2.0
#include "testing/kill_point.hpp"

#if defined(SHOAL_TESTING) && SHOAL_TESTING

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <set>

extern "C" {
// Bounds of the section that SHOAL_KILL_POINT fills; absent when no kill point is linked. The
// linker prescribes their names. NOLINTBEGIN(bugprone-reserved-identifier)
extern const char __start_shoal_kill_points[] __attribute__((weak, visibility("hidden")));
extern const char __stop_shoal_kill_points[] __attribute__((weak, visibility("hidden")));
// NOLINTEND(bugprone-reserved-identifier)
}

namespace shoal::testing {

os::Atomic<uint32_t> kill_armed;

namespace {

char armed_name[96];
os::Atomic<uint32_t> hits_left;

[[noreturn]] void die() noexcept {
  while (true) ::kill(::getpid(), SIGKILL);
}

void arm(const char* name, size_t length, uint32_t nth) noexcept {
  length = std::min(length, sizeof armed_name - 1);
  std::memcpy(armed_name, name, length);
  armed_name[length] = '\0';
  hits_left.store(nth == 0 ? 1 : nth);
  kill_armed.store(1);
}

// Reads SHOAL_KILL="name:nth" when the program is loaded.
const bool armed_from_environment = []() noexcept {
  const char* text = std::getenv("SHOAL_KILL");
  if (text == nullptr || *text == '\0') return false;
  const char* colon = std::strrchr(text, ':');
  if (colon == nullptr) {
    arm(text, std::strlen(text), 1);
  } else {
    arm(text, static_cast<size_t>(colon - text),
        static_cast<uint32_t>(std::strtoul(colon + 1, nullptr, 10)));
  }
  return true;
}();

}  // namespace

void arm_kill_point(const char* name, unsigned nth) noexcept { arm(name, std::strlen(name), nth); }

void disarm_kill_points() noexcept { kill_armed.store(0); }

void hit_kill_point(const char* name) noexcept {
  if (std::strcmp(name, armed_name) != 0) return;
  if (hits_left.fetch_sub(1) == 1) die();
}

std::vector<std::string> kill_point_names() {
  std::set<std::string> names;
  const char* at = __start_shoal_kill_points;
  while (at != nullptr && at < __stop_shoal_kill_points) {
    if (*at != '\0') names.insert(at);
    at += std::strlen(at) + 1;
  }
  return {names.begin(), names.end()};
}

}  // namespace shoal::testing
#endif
