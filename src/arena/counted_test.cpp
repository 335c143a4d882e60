// SPDX-License-Identifier: Apache-2.0
//
// Counted blocks, and what a fork makes of them.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <thread>

#include "arena/slots.hpp"
#include "arena/test_session.hpp"

namespace shoal::arena {
namespace {

constexpr size_t kLarge = 200'000;

uint64_t holders(const TestSession& s, Handle b) {
  return s.arena->page(s.arena->page_of(b)).holders.load();
}

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
  EXPECT_EQ(holders(s, b), uint64_t{1} << other->slot());
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
  EXPECT_EQ(holders(s, b), uint64_t{1} << s.me->slot());
  s.me->drop(b);
  EXPECT_EQ(s.blocks(), 0U);
}

TEST(Counted, HeldByNobodyIsFoundByTheReaper) {
  TestSession s;
  const auto victim = s.join();
  const Handle b = victim->allocate(kLarge);
  victim->make_counted(b);
  s.arena->page(s.arena->page_of(b)).holders.store(0);  // killed between the bit and the owner word
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
  EXPECT_EQ(holders(s, b), uint64_t{1} << s.me->slot());
  s.me->drop(b);
  EXPECT_EQ(s.blocks(), 0U);
}

// ---- fork ----

TEST(Fork, ChildOfAMemberWithoutSharedBlocksIsNoMemberUntilItJoins) {
  TestSession s;
  const Handle b = s.me->allocate(100);
  const int status = in_child([&] {
    if (!s.me->forked_child() || s.me->incarnation() != 0) return 1;
    s.me->free(b);  // the parent's
    try {
      (void)s.me->allocate(1);
      return 2;
    } catch (const NotAMember&) {
    }
    s.me->rejoin();
    const Handle own = s.me->allocate(100);
    if (own == b || s.arena->block_size(own) == 0) return 3;
    s.me->leave();
    return 0;
  });
  EXPECT_TRUE(succeeded(status)) << status;
  EXPECT_FALSE(s.me->forked_child());
  EXPECT_EQ(s.blocks(), 1U);
  s.arena->check();
}

TEST(Fork, ChildSeesItsOwnCopyOfSharedBlocks) {
  TestSession s;
  const Handle b = s.me->allocate(kLarge);
  s.me->make_counted(b);
  auto* data = s.arena->at<os::Atomic<uint32_t>>(b);
  data[0].store(1);
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    data[0].store(2);  // the parent must not see it
    char c;
    const bool woken = read(ready[0], &c, 1) == 1;
    const bool intact = data[0].load() == 2 && data[100].load() == 0;
    const Handle other = s.me->allocate(kLarge);
    const bool separate = other != b;
    s.me->drop(b);
    _exit(woken && intact && separate && s.me->incarnation() != 0 ? 0 : 1);
  }
  while (member_listed(*s.arena, s.me->incarnation()) && s.arena->statistics().members < 2)
    std::this_thread::yield();
  s.me->drop(b);
  EXPECT_EQ(s.blocks(), 1U);  // the child holds it: not recycled
  const Handle mine = s.me->allocate(kLarge);
  EXPECT_NE(mine, b);
  s.arena->at<os::Atomic<uint32_t>>(mine)[100].store(7);
  ASSERT_EQ(write(ready[1], "x", 1), 1);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(succeeded(status)) << status;
  s.me->free(mine);
  reap_all_dead(*s.arena, *s.me);
  EXPECT_EQ(s.blocks(), 0U);
  close(ready[0]);
  close(ready[1]);
}

TEST(Fork, ChildThatDroppedABlockSeesItsNextUseByOthers) {
  TestSession s;
  const Handle b = s.me->allocate(kLarge);
  s.me->make_counted(b);
  const int status = in_child([&] {
    auto* data = s.arena->at<os::Atomic<uint32_t>>(b);
    data[0].store(5);
    s.me->drop(b);
    return data[0].load() == 0 ? 0 : 1;  // shared again: the parent's value
  });
  EXPECT_TRUE(succeeded(status)) << status;
}

TEST(Fork, GrandchildKeepsWhatTheChildWrote) {
  TestSession s;
  const Handle b = s.me->allocate(kLarge);
  s.me->make_counted(b);
  auto* data = s.arena->at<os::Atomic<uint32_t>>(b);
  const int status = in_child([&] {
    data[3].store(9);
    return succeeded(
               in_child([&] { return data[3].load() == 9 && s.me->incarnation() != 0 ? 0 : 1; }))
               ? 0
               : 1;
  });
  EXPECT_TRUE(succeeded(status)) << status;
  EXPECT_EQ(data[3].load(), 0U);
  reap_all_dead(*s.arena, *s.me);
  s.me->drop(b);
  EXPECT_EQ(s.blocks(), 0U);
}

TEST(Fork, PreparedChildDiesWithAParentThatDies) {
  TestSession s;
  const auto parent = s.join();
  const Incarnation child = try_claim_slot(*s.arena, MemberKind::process, 0, parent->incarnation());
  const Handle b = parent->allocate(kLarge);
  parent->make_counted(b);
  s.arena->page(s.arena->page_of(b)).holders.fetch_or(uint64_t{1} << slot_of(child));
  parent->abandon_for_test();
  reap_all_dead(*s.arena, *s.me);
  EXPECT_FALSE(enliven_slot(*s.arena, child, getpid(), 1));
  EXPECT_EQ(s.blocks(), 0U);
  EXPECT_EQ(s.arena->statistics().members, 1U);
}

TEST(Fork, WhileOtherThreadsAllocateNeverHangsTheChild) {
  TestSession s;
  os::Atomic<uint32_t> stop;
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t)
    threads.emplace_back([&] {
      while (stop.load() == 0) {
        const Handle b = s.me->allocate(kLarge);
        s.me->make_counted(b);
        s.me->free(s.me->allocate(100));
        s.me->drop(b);
      }
    });
  for (int i = 0; i < 50; ++i) {
    const int status = in_child([&] {
      alarm(20);
      if (s.me->incarnation() == 0) s.me->rejoin();
      s.me->free(s.me->allocate(100));
      s.me->free(s.me->allocate(kLarge));
      return 0;
    });
    EXPECT_TRUE(succeeded(status)) << status;
    reap_all_dead(*s.arena, *s.me);
  }
  stop.store(1);
  for (std::thread& t : threads) t.join();
  reap_all_dead(*s.arena, *s.me);
  EXPECT_EQ(s.blocks(), 0U);
  s.arena->check();
}

}  // namespace
}  // namespace shoal::arena
