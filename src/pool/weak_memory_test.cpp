// SPDX-License-Identifier: Apache-2.0
//
// Pools in a memory that keeps only what the C++ memory model promises (testing/weak_memory.hpp):
// a client that submits and collects, workers that run units, and an agent that stops them.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "pool/test_pool.hpp"
#include "testing/weak_memory.hpp"

namespace shoal::pool {
namespace {

using testing::SimulatedRange;
using testing::WeakCounts;

constexpr unsigned kSeeds = 200;

class PoolInWeakMemory : public ::testing::Test {
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
  // No wake-up may be lost.
  WeakCounts try_it(const std::function<void()>& prepare,
                    std::vector<std::function<void()>> operations,
                    const std::function<void()>& check) {
    const testing::WeakScene scene{
        [&] {
          prepare();
          const arena::Arena& arena = *pool->session.arena;
          return std::vector<SimulatedRange>{{arena.base(), arena.header().reserve}};
        },
        std::move(operations),
        [&](const std::string& run) {
          SCOPED_TRACE(run);
          check();
          return !HasFailure();
        }};
    const WeakCounts counts = testing::weak_random(scene, kSeeds);
    EXPECT_EQ(counts.lost, 0U);
    return counts;
  }
  void collect_all() {
    while (true) {
      const uint32_t seen = pool->client->listen();
      if (pool->collect()) return;
      (void)pool->client->wait(seen, os::kNoDeadline, false);
    }
  }
  Seat& seat_of(const TestWorker& one) { return *pool->agent.state().seat(one.index); }

  std::unique_ptr<TestPool> pool;
  std::unique_ptr<TestWorker> worker, other;
};

TEST_F(PoolInWeakMemory, EachResultIsSeenWithItsUnit) {
  os::Atomic<uint32_t> done;
  const auto run = [&](TestWorker& one) {
    while (done.load() == 0) {
      if (run_all(one.seat) == 0) std::this_thread::yield();
    }
  };
  try_it(
      [&] {
        begin(2);
        done.store(0);
      },
      {[&] {
         pool->submit(3);
         pool->submit_shared(2, 2);
         pool->submit_whole(1, 3);
         while (!pool->collect()) continue;
         done.store(1);
       },
       [&] { run(*worker); }, [&] { run(*other); }},
      [&] { pool->expect_everything_done(); });
}

// As the client reads results: it looks at a unit's word, and then at what that word publishes.
TEST_F(PoolInWeakMemory, AUnitsWordPublishesTheResultsThatItCounts) {
  constexpr uint32_t kItems = 2;
  uint64_t seen = 0;
  try_it(
      [&] {
        begin(1);
        pool->submit(2, kItems);
        ASSERT_TRUE(worker->seat.enter_next());
      },
      {[&] {
         while (const auto claim = worker->seat.claim()) run_claim(worker->seat, *claim);
       },
       [&] {
         const Batch batch = pool->client->batch(0);
         for (uint32_t look = 0; look < 40; ++look) {
           const uint32_t unit = look % 2;
           // order: acquire; pairs with the release stores in WorkerSeat that publish results
           const Unit state = Unit::of(batch.unit_words()[unit].load(os::acquire));
           const uint64_t first = value_of(batch.argument_words()[unit].load());
           for (uint32_t item = 0; item < state.progress; ++item) {
             // order: relaxed; as plain data
             const uint64_t word =
                 batch.result_words()[batch.first_item(unit) + item].load(os::relaxed);
             if ((first + item) % 3 == 0) continue;  // a record
             ASSERT_EQ(word, word_of(2 * (first + item)));
             ++seen;
           }
         }
       }},
      [&] {
        worker->seat.leave_batch();
        pool->expect_everything_done();
      });
  EXPECT_GT(seen, 0U);
}

TEST_F(PoolInWeakMemory, AWorkerThatGoesToSleepHidesNoTask) {
  const WeakCounts counts = try_it(
      [&] {
        begin(1);
        // Another worker seems to be the lookout: this worker sleeps until it is woken.
        pool->client->state().lookout.store(UINT64_MAX);
      },
      {[&] {
         pool->submit(2);
         collect_all();
       },
       [&] {
         for (int units = 0; units < 2;) {
           units += run_all(worker->seat);
           if (units < 2) (void)worker->seat.wait();
         }
       }},
      [&] { pool->expect_everything_done(); });
  EXPECT_EQ(counts.timeouts, 0U);
}

// The client wants the second unit stopped. The agent never takes the first one for it.
TEST_F(PoolInWeakMemory, ARequestStopsNoOtherUnit) {
  uint32_t slot = 0;
  uint64_t taken = 0;
  try_it(
      [&] {
        begin(1);
        pool->submit(2);
        slot = 0;
        ASSERT_TRUE(worker->seat.enter_next());
      },
      {[&] {
         while (const auto claim = worker->seat.claim()) run_claim(worker->seat, *claim);
       },
       [&] {
         for (int tries = 0; tries < 20; ++tries) {
           if (pool->client->request_stop(slot, 1, StopReason::cancel)) break;
         }
       },
       [&] {
         for (int looks = 0; looks < 10; ++looks) (void)pool->agent.orders(0);
       }},
      [&] {
        EXPECT_NE(seat_of(*worker).stop_serial.load(), 1U) << "the serial of the first unit";
        taken += seat_of(*worker).stop_serial.load() == 3 ? 1 : 0;
        worker->seat.leave_batch();
        pool->expect_everything_done();
      });
  EXPECT_GT(taken, 0U);
}

}  // namespace
}  // namespace shoal::pool
