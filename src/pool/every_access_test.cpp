// SPDX-License-Identifier: Apache-2.0
//
// Pools: a worker is stopped at each of its accesses to shared memory while the client submits, or
// other workers run units or die; a client is stopped while workers run units or die. See
// testing/delay.hpp.
#include <gtest/gtest.h>

#include <string>

#include "pool/test_pool.hpp"
#include "testing/delay.hpp"

namespace shoal::pool {
namespace {

using testing::delay_at_every_access;
using testing::DelayCounts;

class PoolDelays : public ::testing::Test {
 protected:
  void begin(int workers) {
    worker.reset();
    other.reset();
    pool.reset();
    pool = std::make_unique<TestPool>();
    pool->session.arena->header().next_purge_ms.store(UINT64_MAX);
    worker = pool->hire();
    if (workers > 1) other = pool->hire();
  }

  // Another worker seems to be the lookout: this worker sleeps until it is woken.
  void take_the_lookout() {
    pool->session.arena->at<PoolState>(pool->client->handle())->lookout.store(UINT64_MAX);
  }

  void tried(const std::string& what, const DelayCounts& counts) {
    RecordProperty(what + ".stops", static_cast<int>(counts.stops));
    EXPECT_GT(counts.stops, 0U) << what;
  }

  std::unique_ptr<TestPool> pool;
  std::unique_ptr<TestWorker> worker, other;
};

TEST_F(PoolDelays, OfAWorkerThatGoesToSleepHideNoTask) {
  const DelayCounts counts = delay_at_every_access(
      [&] {
        begin(1);
        take_the_lookout();
      },
      [&] {
        while (!worker->seat.enter_next()) {
          (void)worker->seat.wait();
        }
        while (const auto claim = worker->seat.claim()) run_claim(worker->seat, *claim);
        worker->seat.leave_batch();
      },
      [&] { pool->submit(1); }, [&](uint64_t) { pool->expect_everything_done(); });
  tried("sleep", counts);
}

TEST_F(PoolDelays, OfAWorkerLoseNoTaskOfOthers) {
  const DelayCounts counts = delay_at_every_access(
      [&] {
        begin(2);
        pool->submit(3);
        pool->submit_shared(4);
      },
      [&] { run_all(worker->seat); },
      [&] {
        pool->submit(2);
        run_all(other->seat);
        pool->die(*other);
      },
      [&](uint64_t k) {
        SCOPED_TRACE("access " + std::to_string(k));
        run_all(worker->seat);
        pool->resolve();
        run_all(worker->seat);
        pool->expect_everything_done();
      });
  tried("run", counts);
}

}  // namespace
}  // namespace shoal::pool
