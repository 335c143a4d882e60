// SPDX-License-Identifier: Apache-2.0
//
// Shared blocks: used in place by several members and by children of forks, freed by the last
// holder.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <thread>

#include "arena/referrer_for_test.hpp"

namespace shoal::arena {
namespace {

uint64_t word(const TestSession& s, Handle b) { return s.arena->owner_word(b).load(); }

TEST(Shared, IsFreedByTheLastHolder) {
  TestSession s;
  const auto other = s.join();
  for (const size_t size : {size_t{64}, size_t{200'000}}) {
    const Handle b = s.me->allocate_shareable(size);
    s.me->share(b);
    EXPECT_TRUE(s.me->hold_shared(b));
    EXPECT_TRUE(other->hold_shared(b));
    EXPECT_FALSE(s.me->drop_shared(b));
    EXPECT_FALSE(s.me->drop_shared(b));
    EXPECT_FALSE(s.me->drop_shared(b));  // one too many: ignored
    EXPECT_EQ(holders_of(*s.arena, b), std::vector<uint32_t>{other->slot()});
    s.arena->check();
    ASSERT_TRUE(other->drop_shared(b));
    EXPECT_EQ(word(s, b), owner_member(other->incarnation()));
    EXPECT_FALSE(s.me->hold_shared(b));
    other->free(b);
    EXPECT_EQ(s.blocks(), 0U);
  }
}

TEST(Shared, OnlyItsOwnerShares) {
  TestSession s;
  const auto other = s.join();
  const Handle b = other->allocate(64);
  EXPECT_THROW(s.me->share(b), std::logic_error);
  EXPECT_FALSE(s.me->hold_shared(b));
  EXPECT_FALSE(s.me->hold_shared(12345));
}

TEST(Shared, ADeathLetsGo) {
  TestSession s;
  const auto victim = s.join();
  const Handle kept = s.me->allocate_shareable(64);
  s.me->share(kept);
  ASSERT_TRUE(victim->hold_shared(kept));
  const Handle alone = victim->allocate_shareable(64);
  victim->share(alone);
  const Handle child = victim->allocate(64);
  victim->give_to_block(child, alone);
  victim->abandon_for_test();
  reap_all_dead(*s.arena, *s.me);
  EXPECT_EQ(holders_of(*s.arena, kept), std::vector<uint32_t>{s.me->slot()});
  EXPECT_EQ(s.blocks(), 1U);
  s.arena->check();
}

TEST(Shared, ChildOfAForkUsesTheSameMemoryAndHoldsIt) {
  TestSession s;
  const Handle b = s.me->allocate_shareable(64);
  s.me->share(b);
  auto* data = s.arena->at<os::Atomic<uint32_t>>(b);
  data->store(1);
  const int status = in_child([&] {
    data->store(2);
    return s.me->incarnation() != 0 && s.me->shared_held() == 1 ? 0 : 1;
  });
  EXPECT_TRUE(succeeded(status)) << status;
  EXPECT_EQ(data->load(), 2U);
  EXPECT_FALSE(s.me->drop_shared(b));  // the dead child is not reaped yet
  EXPECT_EQ(s.blocks(), 1U);
  reap_all_dead(*s.arena, *s.me);
  EXPECT_EQ(s.blocks(), 0U);
}

TEST(Shared, ManyForksLeaveNoSlotBehind) {
  TestSession s;
  const Handle b = s.me->allocate_shareable(64);
  s.me->share(b);
  for (int i = 0; i < 200; ++i) {
    const int status = in_child([&] { return s.me->slot() < 210 ? 0 : 1; });
    ASSERT_TRUE(succeeded(status)) << i;
  }
  reap_all_dead(*s.arena, *s.me);
  ASSERT_TRUE(s.me->drop_shared(b));
  s.me->free(b);
  EXPECT_EQ(s.blocks(), 0U);
}

TEST(Shared, HeldAndDroppedByManyThreadsAndMembers) {
  TestSession s;
  const Handle b = s.me->allocate_shareable(64);
  s.me->share(b);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      const auto own = t % 2 == 0 ? s.join() : nullptr;
      Member& me = own ? *own : *s.me;
      for (int i = 0; i < 5000; ++i) {
        EXPECT_TRUE(me.hold_shared(b));
        EXPECT_FALSE(me.drop_shared(b));
      }
    });
  for (std::thread& t : threads) t.join();
  ASSERT_TRUE(s.me->drop_shared(b));
  s.me->free(b);
  EXPECT_EQ(s.blocks(), 0U);
}

}  // namespace
}  // namespace shoal::arena
