// SPDX-License-Identifier: Apache-2.0
//
// LocalLock: excludes the threads of one process from each other for a few dozen instructions.
// lock() is one locked instruction and unlock() a plain store: half the cost of std::mutex, which
// would be most of the cost of a small allocation. unlock() therefore wakes no waiter: a waiter
// polls the word, with increasing pauses (os/backoff.hpp). The lock is never held while its holder
// waits for another process, nor across a system call that can take long, with two exceptions: from
// the handlers before a fork to those after it, so that the child inherits a state that no other
// thread is changing; and while the member leaves, since no other thread uses the member then. A
// forked child may reset the lock. Not recursive.
// Design: docs/design/arena.md
#pragma once

#include "os/atomic.hpp"
#include "os/backoff.hpp"

namespace shoal::arena {

class LocalLock {
 public:
  void lock() noexcept {
    // order: acquire; pairs with release in unlock; publishes what the lock guards
    if (word_.exchange(1, os::acquire) != 0) lock_slowly();
  }
  void unlock() noexcept {
    word_.store(0, os::release);  // order: release; pairs with acquire in lock
  }
  void reset() noexcept { word_.store(0); }

 private:
  [[gnu::noinline]] void lock_slowly() noexcept {
    os::Backoff backoff;
    do {
      // order: relaxed; the exchange decides
      while (word_.load(os::relaxed) != 0) backoff.pause();
    } while (word_.exchange(1, os::acquire) != 0);  // order: acquire; as in lock
  }

  os::Atomic<uint32_t> word_;
};

}  // namespace shoal::arena
