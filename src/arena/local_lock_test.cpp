// SPDX-License-Identifier: Apache-2.0
#include "arena/local_lock.hpp"

#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <thread>

#include "testing/delay.hpp"

namespace shoal::arena {
namespace {

// A waiter that only yields never lets a lock holder of lower priority run.
TEST(LocalLock, AWaiterSleepsWhileTheHolderIsStopped) {
  LocalLock lock;
  lock.lock();
  os::Atomic<uint32_t> waiting;
  std::thread waiter([&] {
    waiting.store(static_cast<uint32_t>(gettid()));
    lock.lock();
    lock.unlock();
  });
  while (waiting.load() == 0) sched_yield();
  bool slept = false;
  for (int looks = 0; !slept && looks < 100'000; ++looks) {
    slept = testing::thread_sleeps(static_cast<pid_t>(waiting.load()));
    sched_yield();
  }
  EXPECT_TRUE(slept);
  lock.unlock();
  waiter.join();
}

}  // namespace
}  // namespace shoal::arena
