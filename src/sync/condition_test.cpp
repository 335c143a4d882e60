// SPDX-License-Identifier: Apache-2.0
#include "sync/condition.hpp"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "sync/holds.hpp"
#include "sync/mutex.hpp"
#include "testing/deadline.hpp"

namespace shoal::sync {
namespace {

using arena::Arena;
using arena::Member;
using arena::MemberKind;
using testing::in_ms;

class ConditionTest : public ::testing::Test {
 protected:
  ConditionTest() {
    register_reap_hooks();
    block_ = me_->allocate(sizeof(ConditionState));
    Condition::create(*arena_, block_);
    mutex_ = me_->allocate(sizeof(MutexState));
    Mutex::create(*arena_, mutex_);
  }
  Condition condition() { return {*arena_, block_}; }
  Mutex mutex() { return {*arena_, mutex_}; }

  std::shared_ptr<Arena> arena_ = Arena::create({uint64_t{1} << 32, 0});
  std::unique_ptr<Member> me_ = Member::join(arena_, MemberKind::root);
  arena::Handle block_ = 0;
  arena::Handle mutex_ = 0;
};

TEST_F(ConditionTest, NotifiesExactlyTheOldestWaiters) {
  Condition c = condition();
  const auto first = c.begin_wait(*me_);
  const auto second = c.begin_wait(*me_);
  const auto third = c.begin_wait(*me_);
  EXPECT_EQ(c.waiters(), 3U);
  EXPECT_EQ(c.notify(*me_, 2), 2U);
  EXPECT_EQ(c.wait(first, kForever), WaitResult::ok);
  EXPECT_EQ(c.wait(second, kForever), WaitResult::ok);
  EXPECT_EQ(c.wait(third, in_ms(20)), WaitResult::timed_out);
  EXPECT_TRUE(c.end_wait(*me_, first));
  EXPECT_TRUE(c.end_wait(*me_, second));
  EXPECT_FALSE(c.end_wait(*me_, third));
  EXPECT_EQ(c.notify_all(*me_), 0U);
  EXPECT_EQ(Holds::of(*me_).used_for_test(), 0);
}

TEST_F(ConditionTest, HandsOneItemAfterTheOtherToManyThreads) {
  constexpr int kConsumers = 4;
  constexpr int kItems = 20'000;
  int available = 0;
  int consumed = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < kConsumers; ++i) {
    threads.emplace_back([&] {
      const auto member = Member::join(arena_, MemberKind::process);
      Condition c = condition();
      Mutex m = mutex();
      for (;;) {
        ASSERT_EQ(m.lock(*member), Locked::ok);
        while (available == 0 && consumed < kItems) {
          const auto ticket = c.begin_wait(*member);
          m.unlock(*member);
          ASSERT_EQ(c.wait(ticket, in_ms(60'000)), WaitResult::ok);
          ASSERT_TRUE(c.end_wait(*member, ticket));
          ASSERT_EQ(m.lock(*member), Locked::ok);
        }
        if (consumed == kItems) break;
        --available;
        if (++consumed == kItems) c.notify_all(*member);
        m.unlock(*member);
      }
      m.unlock(*member);
    });
  }
  Condition c = condition();
  Mutex m = mutex();
  for (int i = 0; i < kItems; ++i) {
    ASSERT_EQ(m.lock(*me_), Locked::ok);
    ++available;
    c.notify(*me_);
    m.unlock(*me_);
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(consumed, kItems);
  EXPECT_EQ(available, 0);
}

TEST_F(ConditionTest, ANotificationGivenToADeadWaiterIsPassedOn) {
  Condition c = condition();
  auto dying = Member::join(arena_, MemberKind::process);
  static_cast<void>(c.begin_wait(*dying));
  const auto mine = c.begin_wait(*me_);
  EXPECT_EQ(c.notify(*me_), 1U);
  EXPECT_EQ(c.wait(mine, in_ms(20)), WaitResult::timed_out);
  dying->abandon_for_test();
  arena::reap_all_dead(*arena_, *me_);
  EXPECT_EQ(c.wait(mine, in_ms(10'000)), WaitResult::ok);
  EXPECT_TRUE(c.end_wait(*me_, mine));
  EXPECT_EQ(c.waiters(), 0U);
}

TEST_F(ConditionTest, ADeadWaiterThatWasNotNotifiedIsForgotten) {
  Condition c = condition();
  auto dying = Member::join(arena_, MemberKind::process);
  static_cast<void>(c.begin_wait(*dying));
  dying->abandon_for_test();
  arena::reap_all_dead(*arena_, *me_);
  EXPECT_EQ(c.waiters(), 0U);
}

TEST_F(ConditionTest, MoreWaitersThanOneTableHolds) {
  Condition c = condition();
  std::vector<Condition::Ticket> tickets;
  for (int i = 0; i < 200; ++i) tickets.push_back(c.begin_wait(*me_));
  EXPECT_EQ(c.notify(*me_, 150), 150U);
  for (int i = 0; i < 200; ++i)
    EXPECT_EQ(c.end_wait(*me_, tickets[static_cast<size_t>(i)]), i < 150);
  const uint64_t before = arena_->statistics().blocks_block;
  EXPECT_GT(before, 0U);
  c.destroy(*me_);
  EXPECT_EQ(arena_->statistics().blocks_block, 0U);
}

}  // namespace
}  // namespace shoal::sync
