// SPDX-License-Identifier: Apache-2.0
//
// Counted blocks. fork_test.cpp tests what a fork does with them.
#include <gtest/gtest.h>

#include <thread>

#include "arena/referrer_for_test.hpp"
#include "testing/delay.hpp"

namespace shoal::arena {
namespace {

constexpr size_t kLarge = 200'000;

std::vector<uint32_t> holders(const TestSession& s, Handle b) { return holders_of(*s.arena, b); }

TEST(Counted, IsFreedByTheLastHolder) {
  TestSession s;
  const auto other = s.join();
  const Handle b = s.me->allocate(kLarge);
  s.me->make_counted(b);
  EXPECT_TRUE(s.me->hold(b));
  EXPECT_TRUE(other->hold(b));
  s.me->drop(b);
  s.me->drop(b);
  s.me->drop(b);  // one too many: ignored
  EXPECT_EQ(s.blocks(), 1U);
  EXPECT_EQ(holders(s, b), std::vector<uint32_t>{other->slot()});
  other->drop(b);
  EXPECT_EQ(s.blocks(), 0U);
  EXPECT_FALSE(s.me->hold(b));
}

TEST(Counted, IsTakenBackOnlyByItsOnlyHolder) {
  TestSession s;
  const auto other = s.join();
  const Handle b = s.me->allocate(kLarge);
  EXPECT_FALSE(s.me->take_counted(b));  // not counted
  s.me->make_counted(b);
  ASSERT_TRUE(s.me->hold(b));
  EXPECT_FALSE(s.me->take_counted(b));  // held twice
  s.me->drop(b);
  ASSERT_TRUE(other->hold(b));
  EXPECT_FALSE(s.me->take_counted(b));  // held by another
  other->drop(b);
  EXPECT_TRUE(s.me->take_counted(b));
  EXPECT_FALSE(s.me->hold(b));
  s.me->free(b);
  EXPECT_EQ(s.blocks(), 0U);
}

TEST(Counted, SmallBlocksAndOthersBlocksCannotBe) {
  TestSession s;
  const auto other = s.join();
  EXPECT_FALSE(s.me->can_count(s.me->allocate(100)));
  EXPECT_THROW(s.me->make_counted(s.me->allocate(100)), std::logic_error);
  EXPECT_THROW(s.me->make_counted(other->allocate(kLarge)), std::logic_error);
}

TEST(Counted, IsTakenBackByItsOnlyHolder) {
  TestSession s;
  const auto other = s.join();
  const Handle b = s.me->allocate(kLarge);
  s.me->make_counted(b);
  EXPECT_TRUE(other->hold(b));
  EXPECT_FALSE(s.me->take_counted(b));
  EXPECT_FALSE(other->take_counted(b));
  other->drop(b);
  EXPECT_TRUE(s.me->hold(b));
  EXPECT_FALSE(s.me->take_counted(b));
  s.me->drop(b);
  EXPECT_TRUE(s.me->take_counted(b));
  EXPECT_EQ(s.arena->owner_word(b).load(), owner_member(s.me->incarnation()));
  s.me->free(b);
  EXPECT_EQ(s.blocks(), 0U);
}

TEST(Counted, SurvivesTheDeathOfItsMaker) {
  TestSession s;
  const auto maker = s.join();
  const Handle b = maker->allocate(kLarge);
  maker->make_counted(b);
  ASSERT_TRUE(s.me->hold(b));
  maker->abandon_for_test();
  reap_all_dead(*s.arena, *s.me);
  EXPECT_EQ(holders(s, b), std::vector<uint32_t>{s.me->slot()});
  s.me->drop(b);
  EXPECT_EQ(s.blocks(), 0U);
}

TEST(Counted, OneProcessHoldsNoMoreThanItMayHaveMappingsFor) {
  TestSession s;
  const Handle first = s.me->allocate(kLarge);
  const Handle second = s.me->allocate(kLarge);
  s.me->limit_held_for_test(1);
  EXPECT_TRUE(s.me->can_count(first));
  s.me->make_counted(first);
  EXPECT_FALSE(s.me->can_count(second));
  s.me->drop(first);
  EXPECT_TRUE(s.me->can_count(second));
}

// The member was killed after it had cleared its bit.
TEST(Counted, HeldByNobodyIsFoundByTheReaper) {
  TestSession s;
  const auto victim = s.join();
  const Handle b = victim->allocate(kLarge);
  victim->make_counted(b);
  s.arena->page(s.arena->page_of(b)).holders.fetch_and(~(uint64_t{1} << victim->slot()));
  victim->abandon_for_test();
  reap_all_dead(*s.arena, *s.me);
  EXPECT_EQ(s.blocks(), 0U);
}

TEST(Counted, HeldAndDroppedByManyThreadsAndMembers) {
  TestSession s;
  const Handle b = s.me->allocate(kLarge);
  s.me->make_counted(b);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      const auto own = t % 2 == 0 ? s.join() : nullptr;
      Member& me = own ? *own : *s.me;
      for (int i = 0; i < 5000; ++i) {
        EXPECT_TRUE(me.hold(b));
        me.drop(b);
      }
    });
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(holders(s, b), std::vector<uint32_t>{s.me->slot()});
  s.me->drop(b);
  EXPECT_EQ(s.blocks(), 0U);
}

// The kernel may take long to restore the view.
TEST(Counted, ADropThatRestoresTheSharedViewLetsOtherThreadsAllocate) {
  TestSession s;
  const Handle b = s.me->allocate(kLarge);
  s.me->make_counted(b);
  EXPECT_TRUE(succeeded(in_child([] { return 0; })));
  ASSERT_EQ(s.me->private_views_for_test(), 1U);
  Handle small = 0;
  const testing::OtherThread allocation = testing::delay_once(
      1, [&] { s.me->drop(b); }, [&] { small = s.me->allocate(64); }, s.arena->address(b));
  EXPECT_EQ(allocation, testing::OtherThread::ended);
  s.me->free(small);
  reap_all_dead(*s.arena, *s.me);
  EXPECT_EQ(s.blocks(), 0U);
}

TEST(Counted, IsHeldAgainOnlyInTheSharedViewWhileAnotherThreadDropsIt) {
  TestSession s;
  const auto other = s.join();
  const Handle b = s.me->allocate(kLarge);
  auto* const word = s.arena->at<os::Atomic<uint64_t>>(b);
  word->store(1);
  s.me->make_counted(b);
  EXPECT_TRUE(succeeded(in_child([] { return 0; })));
  word->store(2);  // in the private view
  ASSERT_TRUE(other->hold(b));
  uint64_t seen = 0;
  const testing::OtherThread hold = testing::delay_once(
      1, [&] { s.me->drop(b); },
      [&] {
        EXPECT_TRUE(s.me->hold(b));
        seen = s.arena->at<os::Atomic<uint64_t>>(b)[0].load();
      },
      s.arena->address(b));
  EXPECT_EQ(hold, testing::OtherThread::waited);
  EXPECT_EQ(seen, 1U);
  EXPECT_EQ(s.me->private_views_for_test(), 0U);
  s.me->drop(b);
  other->drop(b);
  reap_all_dead(*s.arena, *s.me);
  EXPECT_EQ(s.blocks(), 0U);
}

}  // namespace
}  // namespace shoal::arena
