// SPDX-License-Identifier: Apache-2.0
//
// Shared blocks: used in place by several members and by children of forks, freed by the last
// holder.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <thread>

#include "arena/slots.hpp"
#include "arena/test_session.hpp"

namespace shoal::arena {
namespace {

uint64_t word(const TestSession& s, Handle b) { return s.arena->owner_word(b).load(); }

TEST(Shared, IsFreedByTheLastHolder) {
  TestSession s;
  const auto other = s.join();
  for (const size_t size : {size_t{64}, size_t{200'000}}) {
    const Handle b = s.me->allocate(size);
    s.me->share(b);
    EXPECT_TRUE(s.me->hold_shared(b));
    EXPECT_TRUE(other->hold_shared(b));
    EXPECT_FALSE(s.me->drop_shared(b));
    EXPECT_FALSE(s.me->drop_shared(b));
    EXPECT_FALSE(s.me->drop_shared(b));  // one too many: ignored
    EXPECT_EQ(word(s, b), owner_shared(sharer_bit(other->slot())));
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
  const Handle kept = s.me->allocate(64);
  s.me->share(kept);
  ASSERT_TRUE(victim->hold_shared(kept));
  const Handle alone = victim->allocate(64);
  victim->share(alone);
  const Handle child = victim->allocate(64);
  victim->give_to_block(child, alone);
  victim->abandon_for_test();
  reap_all_dead(*s.arena, *s.me);
  EXPECT_EQ(word(s, kept), owner_shared(sharer_bit(s.me->slot())));
  EXPECT_EQ(s.blocks(), 1U);
  s.arena->check();
}

TEST(Shared, ChildOfAForkUsesTheSameMemoryAndHoldsIt) {
  TestSession s;
  const Handle b = s.me->allocate(64);
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
  const Handle b = s.me->allocate(64);
  s.me->share(b);
  for (int i = 0; i < 200; ++i) {
    const int status = in_child([&] { return s.me->slot() < kSharerSlots ? 0 : 1; });
    ASSERT_TRUE(succeeded(status)) << i;
  }
  reap_all_dead(*s.arena, *s.me);
  ASSERT_TRUE(s.me->drop_shared(b));  // never pinned
  s.me->free(b);
  EXPECT_EQ(s.blocks(), 0U);
}

TEST(Shared, MoreMembersHoldItThanHaveBits) {
  TestSession s;
  std::vector<std::unique_ptr<Member>> members;
  for (uint32_t i = 0; i <= kSharerSlots + 3; ++i) members.push_back(s.join());
  Member& last = *members.back();
  ASSERT_GE(last.slot(), kSharerSlots);
  const Handle b = last.allocate(64);
  last.share(b);
  for (auto& member : members) ASSERT_TRUE(member->hold_shared(b));
  s.arena->check();
  ASSERT_TRUE(s.me->hold_shared(b));
  // After a fork the child's members hold it too, and drop it when they leave.
  EXPECT_TRUE(succeeded(in_child([&] {
    const bool is_held = last.slot() >= kSharerSlots && last.shared_held() == 1;
    s.me->leave();  // the fork has made a member of the child for each of these
    for (auto& member : members) member->leave();
    return is_held ? 0 : 1;
  })));
  for (auto& member : members) EXPECT_FALSE(member->drop_shared(b));
  EXPECT_FALSE(last.drop_shared(b));  // `last` also has the reference of share()
  ASSERT_TRUE(last.hold_shared(b));
  EXPECT_FALSE(s.me->drop_shared(b));
  last.leave();
  EXPECT_EQ(s.blocks(), 0U);
}

TEST(Shared, ADeathInASlotWithoutABitKeepsWhatItHeld) {
  TestSession s;
  std::vector<std::unique_ptr<Member>> members;
  for (uint32_t i = 0; i <= kSharerSlots; ++i) members.push_back(s.join());
  ASSERT_GE(members.back()->slot(), kSharerSlots);
  const Handle b = s.me->allocate(64);
  s.me->share(b);
  ASSERT_TRUE(members.back()->hold_shared(b));
  members.back()->abandon_for_test();
  reap_all_dead(*s.arena, *s.me);
  EXPECT_FALSE(s.me->drop_shared(b));
  EXPECT_EQ(s.blocks(), 1U);  // stays until the session ends
  s.arena->check();
}

TEST(Shared, ReferencesOutliveTheirMakers) {
  TestSession s;
  const Handle b = s.me->allocate(64);
  s.me->share(b);
  const auto other = s.join();
  ASSERT_TRUE(other->hold_shared(b));
  EXPECT_TRUE(other->store_shared(b));
  EXPECT_TRUE(other->store_shared(b));
  other->abandon_for_test();
  EXPECT_FALSE(s.me->drop_shared(b));
  reap_all_dead(*s.arena, *s.me);
  EXPECT_EQ(word(s, b), owner_shared(2 * kStoredOnce));
  s.arena->check();
  EXPECT_FALSE(s.me->unstore_shared(b));
  ASSERT_TRUE(s.me->hold_shared(b));  // as a member that has read a stored reference
  EXPECT_FALSE(s.me->unstore_shared(b));
  EXPECT_FALSE(s.me->unstore_shared(b));  // one too many: ignored
  ASSERT_TRUE(s.me->drop_shared(b));
  end_block(*s.me, b);
  EXPECT_EQ(s.blocks(), 0U);
  EXPECT_FALSE(s.me->store_shared(b));
}

TEST(Shared, HeldAndDroppedByManyThreadsAndMembers) {
  TestSession s;
  const Handle b = s.me->allocate(64);
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
