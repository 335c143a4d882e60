// SPDX-License-Identifier: Apache-2.0
#include "sync/wait.hpp"

#include <gtest/gtest.h>

#include <optional>
#include <stdexcept>
#include <thread>
#include <vector>

#include "os/cpus.hpp"
#include "testing/child_process.hpp"

namespace shoal::sync {
namespace {

TEST(SpinPermit, IsGivenToOneThreadLessThanThereAreProcessors) {
  const int limit = os::usable_cpus() - 1;
  std::vector<std::optional<SpinPermit>> permits(static_cast<size_t>(limit) + 2);
  int granted = 0;
  for (std::optional<SpinPermit>& permit : permits) granted += permit.emplace() ? 1 : 0;
  EXPECT_EQ(granted, limit);
  permits.clear();
  EXPECT_EQ(bool{SpinPermit()}, limit > 0);
}

TEST(SpinPermit, OfThreadsThatAForksChildDoesNotHaveAreFree) {
  if (os::usable_cpus() < 2) GTEST_SKIP() << "nothing spins on one processor";
  os::Atomic<uint32_t> spinning;
  os::Atomic<uint32_t> done;
  std::vector<std::thread> threads;
  for (int i = 1; i < os::usable_cpus(); ++i)
    threads.emplace_back([&] {
      const SpinPermit permit;
      spinning.fetch_add(1);
      while (done.load() == 0) std::this_thread::yield();
    });
  while (spinning.load() < threads.size()) std::this_thread::yield();
  EXPECT_FALSE(SpinPermit());
  testing::ChildProcess child([] {
    for (int i = 0; i < 3; ++i)
      if (!SpinPermit()) throw std::runtime_error("the child may not spin");
  });
  EXPECT_EQ(child.wait(), testing::Ending::finished);
  done.store(1);
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace shoal::sync
