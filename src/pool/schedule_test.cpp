// SPDX-License-Identifier: Apache-2.0
//
// Batches, claims and stealing without any death: every unit is run once, and its memory lives as
// long as somebody may touch it.
#include "pool/test_pool.hpp"

#include <thread>

namespace shoal::pool {
namespace {

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
  ASSERT_TRUE(thief->seat.enter_next());
  EXPECT_TRUE(thief->seat.is_thief());
  for (uint32_t unit = 9; unit > 4; --unit) {
    const auto claim = thief->seat.claim();
    ASSERT_EQ(claim->unit, unit);
    run_claim(thief->seat, *claim);
  }
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
  EXPECT_EQ(worker->seat.stop_reason(), StopReason::cancel);
  const int64_t now = os::monotonic_ns();
  auto orders = pool.agent.orders(now);
  ASSERT_EQ(orders.size(), 1U);
  EXPECT_FALSE(orders[0].kill);
  EXPECT_TRUE(pool.agent.orders(now + 100).empty());  // not again at once
  orders = pool.agent.orders(now + 2'000'000);        // grace is over
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

// ---- Doorbells ----------------------------------------------------------------------------------

TEST(Doorbell, NoWakeUpIsLost) {
  os::Atomic<uint32_t> words[2]{};
  os::Atomic<uint64_t> turn{};
  constexpr uint64_t kTurns = 30'000;
  const auto play = [&](uint64_t me) {
    Doorbell mine(words[me]), other(words[1 - me]);
    for (;;) {
      uint64_t now = turn.load();
      while (now < kTurns && now % 2 != me) {
        const uint32_t seen = mine.listen();
        if ((now = turn.load()) % 2 != me && now < kTurns) mine.sleep(seen, -1);
        now = turn.load();
      }
      if (now >= kTurns) break;
      turn.store(now + 1);
      now % 3 == 0 ? other.ring_one() : other.ring_all();
    }
    other.ring_all();
  };
  std::thread first(play, 0), second(play, 1);
  first.join();
  second.join();
  EXPECT_GE(turn.load(), kTurns);
}

TEST(Doorbell, AnAlarmWakesThoseWhomADeadRingerForgot) {
  os::Atomic<uint32_t> word{};
  os::Atomic<uint32_t> woken{};
  Doorbell bell(word);
  std::thread sleeper([&] {
    bell.sleep(bell.listen(), -1);
    woken.store(1);
  });
  while (!bell.has_sleepers()) std::this_thread::yield();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  word.store((word.load() + 2) & ~1U);  // what ring_all() does before it calls the kernel
  bell.ring_all();
  bell.alarm();
  sleeper.join();
  EXPECT_EQ(woken.load(), 1U);
}

}  // namespace
}  // namespace shoal::pool
