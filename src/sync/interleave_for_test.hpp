// SPDX-License-Identifier: Apache-2.0
//
// interleave(): one thread does by hand what two members do when one of them is stopped: it runs an
// operation, and just before a chosen access of it to shared memory a whole other operation. Tests
// only.
// Design: docs/design/sync.md
#pragma once

#include <cstdint>
#include <functional>

#include "os/atomic.hpp"

namespace shoal::sync {

struct Interleaving {
  uint64_t before;  // the access before which `other` runs, counted from 1
  uint64_t seen = 0;
  const std::function<void()>* other;
  static inline thread_local Interleaving* current = nullptr;

  static void at_access(const void*) {
    Interleaving& me = *current;
    if (++me.seen != me.before) return;
    os::access_hook = nullptr;  // the other operation's accesses do not count
    (*me.other)();
    os::access_hook = &at_access;
  }
};

// Runs `operation`, and `other` before its access number `before`. False: the operation made fewer
// accesses, so `other` did not run.
inline bool interleave(uint64_t before, const std::function<void()>& operation,
                       const std::function<void()>& other) {
  Interleaving run{before, 0, &other};
  Interleaving::current = &run;
  os::access_hook = &Interleaving::at_access;
  operation();
  os::access_hook = nullptr;
  return run.seen >= before;
}

}  // namespace shoal::sync
