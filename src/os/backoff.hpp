// SPDX-License-Identifier: Apache-2.0
//
// Backoff: what a thread does between two looks at a word that another thread is about to change:
// first nothing, then it yields, then it sleeps. For waits that nobody wakes. Spins and yields
// alone would be wrong: a thread with a real-time priority yields to threads of that priority only,
// so on one processor it would keep the thread that it waits for from running, for ever. Any
// thread, fork handlers too; never allocates or throws; keeps errno. Design: docs/design/os.md
#pragma once

#include <cstdint>

#include "os/atomic.hpp"

namespace shoal::os {

class Backoff {
 public:
  // One object for each wait, one call after each look that found nothing.
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
