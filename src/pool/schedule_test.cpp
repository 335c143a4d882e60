// SPDX-License-Identifier: Apache-2.0
//
// Batches, claims and stealing without deaths: every unit runs once, and its memory is kept as long
// as a worker may touch it.
#include <thread>

#include "pool/test_pool.hpp"
#include "testing/stop_at.hpp"

namespace shoal::pool {
namespace {

constexpr uint64_t kLong = 1ull << 40;  // ticks

TEST(Schedule, OneWorkerRunsAll) {
  TestPool pool;
  for (int i = 0; i < 20; ++i) pool.submit(static_cast<uint32_t>(i + 1));
  pool.submit(7, 5);
  const auto worker = pool.hire();
  EXPECT_EQ(run_all(worker->seat), 210 + 7);
  pool.expect_everything_done();
  pool.expect_clean_end();
}

TEST(Schedule, SlotsAreUsedAgain) {
  TestPool pool;
  const auto worker = pool.hire();
  for (uint32_t i = 0; i < 3 * kBatchSlots; ++i) {
    pool.submit(1);
    if (!pool.client->has_room() || i % 1000 == 0) {
      run_all(worker->seat);
      ASSERT_TRUE(pool.collect());
    }
  }
  run_all(worker->seat);
  pool.expect_everything_done();
  pool.expect_clean_end();
}

TEST(Schedule, AThiefTakesFromTheEnd) {
  TestPool pool;
  pool.submit(10);
  const auto owner = pool.hire();
  const auto thief = pool.hire();
  ASSERT_TRUE(owner->seat.enter_next());
  const auto first = owner->seat.claim();
  ASSERT_EQ(first->unit, 0U);
  owner->seat.begin_unit(*first, 0, os::ticks() + kLong);  // not stuck, however slow the test is
  ASSERT_TRUE(thief->seat.enter_next());
  EXPECT_TRUE(thief->seat.is_thief());
  thief->seat.seat().begun_ticks.store(os::ticks() + kLong);
  for (uint32_t unit = 9; unit > 4; --unit) {
    const auto claim = thief->seat.claim();
    ASSERT_EQ(claim->unit, unit);
    thief->seat.begin_unit(*claim, 0, os::ticks() + kLong);
    publish(thief->seat, *claim, 0, true);
    thief->seat.end_unit();
  }
  owner->seat.end_unit();
  run_claim(owner->seat, *first);
  for (uint32_t unit = 1; unit < 5; ++unit) {
    const auto claim = owner->seat.claim();
    ASSERT_EQ(claim->unit, unit);
    run_claim(owner->seat, *claim);
  }
  EXPECT_FALSE(owner->seat.claim());
  EXPECT_FALSE(thief->seat.claim());
  thief->seat.leave_batch();
  owner->seat.leave_batch();
  EXPECT_FALSE(owner->seat.enter_next());
  pool.expect_everything_done();
  pool.expect_clean_end();
}

// Makes the worker look as if it has been in a long unit for a long time.
void be_stuck(TestWorker& worker, const WorkerSeat::Claim& claim) {
  worker.seat.begin_unit(claim, 0, os::ticks() - kLong);
}

std::vector<uint64_t> all_values(TestWorker& worker) {
  std::vector<uint64_t> values;
  while (worker.seat.enter_next()) {
    while (const auto claim = worker.seat.claim()) {
      values.push_back(value_of(worker.seat.batch().argument_words()[claim->unit].load()));
      run_claim(worker.seat, *claim);
    }
    worker.seat.leave_batch();
  }
  return values;
}

std::vector<uint64_t> range(uint64_t from, uint64_t to) {
  std::vector<uint64_t> values;
  while (from < to) values.push_back(from++);
  return values;
}

TEST(Schedule, AStuckWorkersUnitsAreTakenInTheirOrderBeforeWhatWasSentLater) {
  TestPool pool;
  pool.submit(4);  // 100 to 103
  pool.submit(3);  // 104 to 106
  const auto owner = pool.hire();
  const auto other = pool.hire();
  ASSERT_TRUE(owner->seat.enter_next());
  const auto first = owner->seat.claim();
  be_stuck(*owner, *first);
  other->seat.seat().begun_ticks.store(os::ticks());  // it has worked for a while
  EXPECT_EQ(all_values(*other), range(101, 107));
  owner->seat.end_unit();
  run_claim(owner->seat, *first);
  EXPECT_FALSE(owner->seat.claim());
  owner->seat.leave_batch();
  pool.expect_everything_done();
  pool.expect_clean_end();
}

TEST(Schedule, UnitsOfASharedBatchAreTakenInOrderByWhoeverIsFree) {
  TestPool pool;
  pool.submit_shared(6);  // 100 to 105
  pool.submit_shared(2);  // 106, 107
  const auto one = pool.hire();
  const auto two = pool.hire();
  ASSERT_TRUE(one->seat.enter_next());
  const auto first = one->seat.claim();
  one->seat.begin_unit(*first, 0);
  ASSERT_EQ(first->unit, 0U);
  EXPECT_EQ(all_values(*two), range(101, 108));
  EXPECT_EQ(pool.client->queued(), 0U);
  one->seat.end_unit();
  run_claim(one->seat, *first);
  one->seat.leave_batch();
  EXPECT_FALSE(one->seat.enter_next());
  pool.expect_everything_done();
  pool.expect_clean_end();
}

TEST(Schedule, WhatAWorkerLeavesBehindIsRunNextThoughTheClientIsBusy) {
  TestPool pool;
  pool.submit(4);  // 100 to 103
  pool.submit(2);  // 104, 105
  const auto leaver = pool.hire();
  ASSERT_TRUE(leaver->seat.enter_next());
  run_claim(leaver->seat, *leaver->seat.claim());
  ASSERT_TRUE(leaver->seat.hand_over());
  leaver->seat.leave_batch();
  const auto next = pool.hire();
  EXPECT_EQ(all_values(*next), range(101, 106));
  pool.expect_everything_done();
  pool.expect_clean_end();
}

TEST(Schedule, WhatADeadWorkerHadNotBegunIsRunThoughTheClientIsBusy) {
  TestPool pool;
  pool.submit(4);  // 100 to 103
  pool.submit(2);  // 104, 105
  const auto victim = pool.hire();
  ASSERT_TRUE(victim->seat.enter_next());
  run_claim(victim->seat, *victim->seat.claim());
  victim->seat.begin_unit(*victim->seat.claim(), 0);
  victim->abandon();
  pool.agent.record_exit(victim->index, {SIGKILL, 0, false});
  const auto next = pool.hire();
  EXPECT_EQ(all_values(*next), range(102, 106));
  pool.resolve();
  pool.expect_everything_done();
  EXPECT_EQ(pool.lost, 1U);
  pool.expect_clean_end();
}

TEST(Schedule, AWorkerThatLeavesByPlanNeedsNoClientToFreeItsSeat) {
  TestPool pool;
  const auto leaver = pool.hire();
  leaver->seat.seat().exit_kind.store(static_cast<uint32_t>(ExitKind::planned));
  leaver->abandon();
  pool.agent.record_exit(leaver->index, {0, 0, false});
  EXPECT_EQ(life_of(leaver->seat.seat().life.load()), Life::empty);
  EXPECT_FALSE(pool.client->has_deaths());
  pool.expect_clean_end();
}

TEST(Schedule, ABatchThatTakesTooLongIsOpenedByItsWorker) {
  TestPool pool;
  pool.submit(5);  // 100 to 104
  const auto owner = pool.hire();
  const auto other = pool.hire();
  ASSERT_TRUE(owner->seat.enter_next());
  run_claim(owner->seat, *owner->seat.claim());
  owner->seat.notify(os::ticks() + kLong);
  EXPECT_EQ(owner->seat.seat().offers.load(), 0U);
  const auto second = owner->seat.claim();
  ASSERT_EQ(second->unit, 1U);
  EXPECT_EQ(all_values(*other), range(102, 105));
  run_claim(owner->seat, *second);
  EXPECT_FALSE(owner->seat.claim());
  owner->seat.leave_batch();
  EXPECT_FALSE(owner->seat.enter_next());
  pool.expect_everything_done();
  pool.expect_clean_end();
}

TEST(Schedule, BatchesThatArePushedAgainKeepTheirOrder) {
  TestPool pool;
  const auto old = pool.hire();
  pool.submit(1);
  pool.submit(1);
  run_all(old->seat);  // frees slots, which are reused in the opposite order
  EXPECT_TRUE(pool.collect());
  for (int i = 0; i < 5; ++i) pool.submit(2);  // 102 to 111
  const auto victim = pool.hire();
  ASSERT_TRUE(victim->seat.enter_next());
  pool.die(*victim);  // before it has begun a unit
  EXPECT_EQ(all_values(*old), range(102, 112));
  pool.expect_everything_done();
  pool.expect_clean_end();
}

// A sleeping lookout finds the units behind a long one by its timer: no process rings the bell.
TEST(Schedule, ALookoutFindsUnitsBehindALongOne) {
  TestPool pool({4, 0, 1'000'000, 0});
  const auto owner = pool.hire();
  const auto idle = pool.hire();
  os::Atomic<uint32_t> found{};
  std::thread watcher([&] {
    while (!idle->seat.enter_next()) idle->seat.wait();
    found.store(1);
    while (const auto claim = idle->seat.claim()) run_claim(idle->seat, *claim);
    idle->seat.leave_batch();
  });
  while (pool.client->state().lookout.load() == 0) std::this_thread::yield();
  // No waiters bit: notifying wakes no thread.
  pool.client->state().work_bell.word().store(0);
  pool.submit(3);
  bool mine = owner->seat.enter_next();
  const auto claim = mine ? owner->seat.claim() : std::nullopt;
  if (claim) owner->seat.begin_unit(*claim, 0);
  watcher.join();
  EXPECT_EQ(found.load(), 1U);
  if (claim) {
    owner->seat.end_unit();
    run_claim(owner->seat, *claim);
  }
  if (mine) owner->seat.leave_batch();
  run_all(owner->seat);
  pool.expect_everything_done();
  pool.expect_clean_end();
}

TEST(Schedule, ABatchIsKeptWhileAWorkerMayTouchIt) {
  TestPool pool;
  pool.submit(2);
  const auto late = pool.hire();
  const auto owner = pool.hire();
  ASSERT_TRUE(owner->seat.enter_next());
  ASSERT_TRUE(late->seat.enter_next());  // a thief that is slow to claim
  while (const auto claim = owner->seat.claim()) run_claim(owner->seat, *claim);
  owner->seat.leave_batch();
  const uint64_t before = pool.session.blocks();
  EXPECT_TRUE(pool.collect());  // retired
  EXPECT_EQ(pool.session.blocks(), before);
  EXPECT_EQ(pool.session.arena->at<BatchHeader>(late->seat.batch_handle())->magic, kBatchMagic);
  EXPECT_FALSE(late->seat.claim());
  late->seat.leave_batch();
  pool.collect();
  EXPECT_LT(pool.session.blocks(), before);
  pool.expect_everything_done();
  pool.expect_clean_end();
}

TEST(Schedule, CancelledUnitsDoNotRun) {
  TestPool pool;
  const Entry entry = pool.submit(6);
  const auto worker = pool.hire();
  ASSERT_TRUE(worker->seat.enter_next());
  const auto claim = worker->seat.claim();
  EXPECT_FALSE(pool.client->cancel_queued(entry.slot(), claim->unit));
  EXPECT_TRUE(pool.client->cancel_queued(entry.slot(), 3));
  EXPECT_FALSE(pool.client->cancel_queued(entry.slot(), 3));
  run_claim(worker->seat, *claim);
  int ran = 1;
  while (const auto next = worker->seat.claim()) {
    run_claim(worker->seat, *next);
    ++ran;
  }
  worker->seat.leave_batch();
  EXPECT_EQ(ran, 5);
  pool.expect_everything_done();
  EXPECT_EQ(pool.cancelled, 1U);
  pool.expect_clean_end();
}

// The stop is requested after the worker has claimed the unit and before it has begun it.
TEST(Schedule, AUnitThatIsClaimedAndNotBegunIsStoppedWhenItBegins) {
  TestPool pool;
  const Entry entry = pool.submit(2);
  const auto worker = pool.hire();
  ASSERT_TRUE(worker->seat.enter_next());
  auto claim = worker->seat.claim();
  EXPECT_TRUE(pool.client->request_stop(entry.slot(), claim->unit, StopReason::cancel));
  const int64_t now = os::monotonic_ns();
  EXPECT_TRUE(pool.agent.orders(now).empty());
  EXPECT_GE(pool.agent.next_wake_ns(now), now);  // the agent will look again
  worker->seat.begin_unit(*claim, 0);
  EXPECT_EQ(pool.agent.orders(now).size(), 1U);
  EXPECT_EQ(worker->seat.stop_reason(), StopReason::cancel);
  worker->seat.end_unit();
  worker->seat.publish_cancelled(*claim, 0);
  run_claim(worker->seat, *worker->seat.claim());
  worker->seat.leave_batch();
  EXPECT_TRUE(pool.agent.orders(now).empty());
  EXPECT_LT(pool.agent.next_wake_ns(now), 0);
  pool.expect_everything_done();
  EXPECT_EQ(pool.cancelled, 1U);
  pool.expect_clean_end();
}

TEST(Schedule, AStopRequestHitsItsUnitOnly) {
  TestPool pool;
  const Entry entry = pool.submit(3);
  const auto worker = pool.hire();
  ASSERT_TRUE(worker->seat.enter_next());
  auto claim = worker->seat.claim();
  worker->seat.begin_unit(*claim, 0);
  EXPECT_EQ(worker->seat.stop_reason(), StopReason::none);
  EXPECT_FALSE(pool.client->request_stop(entry.slot(), 1, StopReason::cancel));  // not claimed
  EXPECT_TRUE(pool.client->request_stop(entry.slot(), 0, StopReason::cancel));
  const int64_t now = os::monotonic_ns();
  auto orders = pool.agent.orders(now);
  EXPECT_EQ(worker->seat.stop_reason(), StopReason::cancel);
  ASSERT_EQ(orders.size(), 1U);
  EXPECT_FALSE(orders[0].kill);
  EXPECT_TRUE(pool.agent.orders(now + 100).empty());  // not repeated yet
  orders = pool.agent.orders(now + 2'000'000);        // after the grace period
  ASSERT_EQ(orders.size(), 1U);
  EXPECT_TRUE(orders[0].kill);
  worker->seat.end_unit();
  worker->seat.publish_cancelled(*claim, 0);
  claim = worker->seat.claim();
  worker->seat.begin_unit(*claim, 0);
  EXPECT_EQ(worker->seat.stop_reason(), StopReason::none);
  EXPECT_TRUE(pool.agent.orders(now + 3'000'000).empty());
  publish(worker->seat, *claim, 0, true);
  worker->seat.end_unit();
  run_claim(worker->seat, *worker->seat.claim());
  worker->seat.leave_batch();
  pool.expect_everything_done();
  EXPECT_EQ(pool.cancelled, 1U);
  pool.expect_clean_end();
}

TEST(Schedule, ATimeLimitGivesOrders) {
  TestPool pool;
  pool.submit(1);
  const auto worker = pool.hire();
  ASSERT_TRUE(worker->seat.enter_next());
  const auto claim = worker->seat.claim();
  worker->seat.begin_unit(*claim, 5'000'000'000);
  const int64_t now = os::monotonic_ns();
  EXPECT_TRUE(pool.agent.orders(now).empty());
  EXPECT_NEAR(static_cast<double>(pool.agent.next_wake_ns(now) - now), 5e9, 1e9);
  EXPECT_EQ(pool.agent.orders(now + 6'000'000'000).size(), 1U);
  EXPECT_EQ(worker->seat.stop_reason(), StopReason::timeout);
  worker->seat.end_unit();
  EXPECT_LT(pool.agent.next_wake_ns(now), 0);
  publish(worker->seat, *claim, 0, true);
  worker->seat.leave_batch();
  pool.expect_everything_done();
  pool.expect_clean_end();
}

// ---- Large pools --------------------------------------------------------------------------------

uint64_t accesses_of_an_idle_look(uint32_t workers) {
  TestPool pool({workers, 0, 1'000'000, 0});
  const auto worker = pool.hire();
  pool.submit(1);
  run_all(worker->seat);
  uint64_t count = 0;
  const auto counts = [&](const void*) { return ++count == 0; };
  testing::stopped_at(1, counts, [&] { EXPECT_FALSE(worker->seat.enter_next()); }, {[] {}});
  return count;
}

TEST(Schedule, AnIdleWorkersLookCostsTheSameInAPoolOfAnySize) {
  // one word for every 64 seats, read twice
  EXPECT_LE(accesses_of_an_idle_look(500), accesses_of_an_idle_look(2) + 2 * kMaxSeats / 64);
}

TEST(Schedule, InALargePoolSmallBatchesAreFreedTogether) {
  TestPool pool({500, 0, 1'000'000, 0});
  const auto worker = pool.hire();
  const auto seats =
      testing::accesses_to(pool.client->state().seat(0), pool.client->seats() * sizeof(Seat));
  const uint64_t before = pool.session.blocks();
  uint64_t sweeps = 0;
  // The first has an inline result, the second a record in a result block.
  for (const uint64_t word : {word_of(100), word_of(99)}) {
    BatchParts parts;
    parts.argument_words = &word;
    parts.units = parts.items = 1;
    for (uint64_t i = 1; i <= 200; ++i) {
      pool.client->submit(parts);
      run_all(worker->seat);
      sweeps +=
          testing::stopped_at(1, seats, [&] { EXPECT_TRUE(pool.collect()); }, {[] {}}) ? 1 : 0;
      EXPECT_LE(pool.session.blocks() - before, 2 * (pool.client->seats() / 32));
    }
  }
  EXPECT_LE(sweeps, 400 / (pool.client->seats() / 32));
  pool.submitted = 400;
  pool.submit(1);  // has an attachment, so that it is freed immediately
  run_all(worker->seat);
  EXPECT_TRUE(pool.collect());
  EXPECT_EQ(pool.session.blocks(), before);
  pool.expect_everything_done();
  pool.expect_clean_end();
}

}  // namespace
}  // namespace shoal::pool
