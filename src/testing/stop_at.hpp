// SPDX-License-Identifier: Apache-2.0
//
// run_stopped_at(): stops an operation before one of its accesses to shared memory, lets others
// act, and lets the operation go on. So a test replays, in one thread and exactly, what happens
// when a process is stopped for any time between two instructions. The operation must hold no lock
// there that the others wait for. Tests only; an operation cannot be stopped within another one.
#pragma once

#include <cstdint>
#include <functional>

#include "os/atomic.hpp"

namespace shoal::testing {

struct Range {  // of addresses
  const void* begin;
  const void* end;
};

namespace detail {
struct Stop {
  Range range;
  uint64_t left;  // accesses until the operation stops
  const std::function<void()>* meanwhile;
};
inline thread_local Stop* stop = nullptr;

inline void count_access(const void* address) {
  Stop& s = *stop;
  if (address < s.range.begin || address >= s.range.end || --s.left != 0) return;
  os::access_hook = nullptr;
  (*s.meanwhile)();
}
}  // namespace detail

// Runs `operation`; before its k-th access (counted from 1) to an os::Atomic in `range`, runs
// `meanwhile`. False: the operation makes fewer such accesses, and `meanwhile` did not run.
inline bool run_stopped_at(uint64_t k, Range range, const std::function<void()>& operation,
                           const std::function<void()>& meanwhile) {
  detail::Stop stop{range, k, &meanwhile};
  detail::stop = &stop;
  os::access_hook = &detail::count_access;
  operation();
  os::access_hook = nullptr;
  return stop.left == 0;
}

}  // namespace shoal::testing
