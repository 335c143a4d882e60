// SPDX-License-Identifier: Apache-2.0
//
// AtAccess: while it exists, `action` runs right before the nth access (counted from 1) of this
// thread to shared memory, as if other members ran while this thread was stopped there. Tests only;
// at most one AtAccess at a time in each thread. With `only` set, accesses to other addresses do
// not count.
#pragma once

#include <cstdint>
#include <functional>

#include "os/atomic.hpp"

namespace shoal::testing {

class AtAccess {
 public:
  AtAccess(uint64_t nth, std::function<void()> action, const void* only = nullptr)
      : nth_(nth), action_(std::move(action)), only_(only) {
    current = this;
    os::access_hook = &hook;
  }
  ~AtAccess() {
    os::access_hook = nullptr;
    current = nullptr;
  }
  AtAccess(const AtAccess&) = delete;
  AtAccess& operator=(const AtAccess&) = delete;

  // Has the thread made at least `nth` accesses?
  [[nodiscard]] bool was_reached() const noexcept { return count_ >= nth_; }
  [[nodiscard]] uint64_t count() const noexcept { return count_; }

 private:
  static inline thread_local AtAccess* current = nullptr;

  static void hook(const void* address) {
    AtAccess& me = *current;
    if (me.only_ != nullptr && me.only_ != address) return;
    if (++me.count_ != me.nth_) return;
    os::access_hook = nullptr;  // the accesses of the action do not count
    me.action_();
    os::access_hook = &hook;
  }

  uint64_t nth_;
  uint64_t count_ = 0;
  std::function<void()> action_;
  const void* only_;
};

}  // namespace shoal::testing
