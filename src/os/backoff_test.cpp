// SPDX-License-Identifier: Apache-2.0
#include "os/backoff.hpp"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/resource.h>

#include <cerrno>
#include <thread>

namespace shoal::os {
namespace {

// The number of voluntary context switches of the calling thread.
long waits_of_this_thread() {
  rusage usage{};
  getrusage(RUSAGE_THREAD, &usage);
  return usage.ru_nvcsw;
}

TEST(Backoff, SleepsAfterAWhileAndKeepsErrno) {
  Backoff backoff;
  errno = 1234;
  const long before = waits_of_this_thread();
  for (int i = 0; i < 10'000; ++i) backoff.pause();
  EXPECT_GE(waits_of_this_thread() - before, 100);
  EXPECT_EQ(errno, 1234);
}

// On one processor, with a real-time priority: without a sleep this would end only if the kernel
// limits the time of real-time threads, and then after a second.
TEST(Backoff, LetsAThreadOfLowerPriorityRun) {
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  cpu_set_t one;
  CPU_ZERO(&one);
  for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++i)
    if (CPU_ISSET(i, &before)) CPU_SET(i, &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  Atomic<uint32_t> done;
  Atomic<uint32_t> begin;
  std::thread lower([&] {
    while (begin.load() == 0) sched_yield();
    done.store(1);
  });
  const sched_param high{1};
  const int refused = sched_setscheduler(0, SCHED_FIFO, &high);
  begin.store(1);
  uint32_t looks = 0;
  Backoff backoff;
  while (refused == 0 && done.load() == 0) {
    backoff.pause();
    ++looks;
  }
  const sched_param normal{0};
  sched_setscheduler(0, SCHED_OTHER, &normal);
  sched_setaffinity(0, sizeof before, &before);
  lower.join();
  if (refused != 0) GTEST_SKIP() << "no real-time priority here";
  EXPECT_LT(looks, 100'000U);
}

}  // namespace
}  // namespace shoal::os
