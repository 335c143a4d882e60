// SPDX-License-Identifier: Apache-2.0
//
// LocalLock: excludes the threads of one process from each other for a few dozen instructions.
// lock() is one locked instruction and unlock() a plain store: half the cost of std::mutex, which
// would be most of the cost of a small allocation. Waiters yield. Never held across a system call
// that can block or while waiting for another process. A forked child may reset it. Not recursive.
// Design: docs/design/arena.md
#pragma once

#include <thread>

#include "os/atomic.hpp"

namespace shoal::arena {

class LocalLock {
 public:
  void lock() noexcept {
    // order: acquire; pairs with release in unlock; publishes what the lock guards
    for (int spin = 0; word_.exchange(1, os::acquire) != 0; ++spin) {
      // order: relaxed; the exchange decides
      while (word_.load(os::relaxed) != 0) {
        if (++spin % 64 == 0) std::this_thread::yield();
        os::cpu_relax();
      }
    }
  }
  void unlock() noexcept {
    word_.store(0, os::release);  // order: release; pairs with acquire in lock
  }
  void reset() noexcept { word_.store(0); }

 private:
  os::Atomic<uint32_t> word_;
};

}  // namespace shoal::arena
