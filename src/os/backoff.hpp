// SPDX-License-Identifier: Apache-2.0
//
// Backoff: the pauses of a thread that polls a word which another thread is about to change. The
// thread spins at first, then yields, then sleeps. For waits that end without a wake-up. Spinning
// and yielding alone would be wrong: a thread with a real-time priority yields only to threads of
// the same priority, so on one processor the thread that it waits for would never run. Any thread,
// fork handlers too; never allocates or throws; keeps errno.
// Design: docs/design/os.md
#pragma once

#include <cstdint>

#include "os/atomic.hpp"

namespace shoal::os {

class Backoff {
 public:
  // One object for each wait; one call after each poll that found the word unchanged.
  void pause() noexcept {
    if (++turns_ % kSpins == 0) give_way();
    cpu_relax();
  }

 private:
  static constexpr uint32_t kSpins = 64;
  void give_way() noexcept;

  uint32_t turns_ = 0;
};

}  // namespace shoal::os
