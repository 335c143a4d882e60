// SPDX-License-Identifier: Apache-2.0
//
// Delays for tests: what other members do while one of them is stopped between two instructions.
//
// stopped_at() runs an operation. Before one of the operation's accesses to shared words, it runs
// whole operations of other members in the same thread, as if the first member had been stopped
// there (SIGSTOP) and continued afterwards. Deterministic, and without a time limit. The other
// operations must not wait for the stopped member, or the test hangs.
//
// sleeps_for_ever() tells a thread that sleeps until it is woken from a thread that runs. Tests
// only; needs a build with access hooks (os/atomic.hpp).
#pragma once

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "os/atomic.hpp"

namespace shoal::testing {

namespace stopping {

struct Plan {
  std::function<bool(const void*)> counts;
  uint64_t left;  // accesses until the next stop
  std::vector<std::function<void()>> others;
  unsigned stops = 0;  // so far
};

inline thread_local Plan* plan = nullptr;

// Restores this thread's plan and hook at its end, also when an operation throws.
class Hooks {
 public:
  Hooks() noexcept : plan_(plan), hook_(os::access_hook) {}
  ~Hooks() {
    plan = plan_;
    os::access_hook = hook_;
  }
  Hooks(const Hooks&) = delete;
  Hooks& operator=(const Hooks&) = delete;

 private:
  Plan* plan_;
  os::AccessHook hook_;
};

inline void before_access(const void* address) {
  Plan* const now = plan;
  if (now->stops == now->others.size() || !now->counts(address) || --now->left != 0) return;
  now->left = 1;
  const Hooks restored;
  os::access_hook = nullptr;  // other operations are not stopped, unless they call stopped_at()
  plan = nullptr;
  now->others[now->stops++]();
}

}  // namespace stopping

// Runs `late`; before its nth access to a word for which `counts` is true, runs the first of
// `others`, before the next such access the second, and so on. False: `late` ended before that.
inline bool stopped_at(uint64_t nth, std::function<bool(const void*)> counts,
                       const std::function<void()>& late,
                       std::vector<std::function<void()>> others) {
  stopping::Plan here{std::move(counts), nth, std::move(others)};
  const stopping::Hooks restored;
  stopping::plan = &here;
  os::access_hook = &stopping::before_access;
  late();
  return here.stops == here.others.size();
}

// The same with one other operation, which runs before the nth access to any word.
inline bool stopped_at(uint64_t nth, const std::function<void()>& late,
                       std::function<void()> other) {
  return stopped_at(nth, [](const void*) { return true; }, late, {std::move(other)});
}

// The accesses to [begin, begin + bytes).
inline std::function<bool(const void*)> accesses_to(const void* begin, uint64_t bytes) {
  const auto first = reinterpret_cast<uintptr_t>(begin);
  return [first, bytes](const void* address) {
    const auto at = reinterpret_cast<uintptr_t>(address);
    return at >= first && at - first < bytes;
  };
}

// Whether this thread of this process sleeps at this moment, and is in a futex call without a time
// limit.
inline bool sleeps_in_futex_call(pid_t thread) {
  const std::string path = "/proc/self/task/" + std::to_string(thread) + "/syscall";
  std::FILE* file = std::fopen(path.c_str(), "r");
  if (file == nullptr) return false;
  long call = -1;
  unsigned long word = 0, operation = 0, expected = 0, limit = 1;
  const int found =
      std::fscanf(file, "%ld %lx %lx %lx %lx", &call, &word, &operation, &expected, &limit);
  std::fclose(file);
  return found == 5 && call == SYS_futex && limit == 0;
}

// Does this thread sleep on a futex until another thread wakes it? False for a thread that has been
// woken, even before it runs. A single check may see a thread that waits for a kernel lock at the
// beginning or the end of the call; that wait ends by itself.
inline bool sleeps_for_ever(pid_t thread) {
  for (int looks = 0; looks < 50; ++looks) {
    if (!sleeps_in_futex_call(thread)) return false;
    sched_yield();
  }
  return true;
}

}  // namespace shoal::testing
