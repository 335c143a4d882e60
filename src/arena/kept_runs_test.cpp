// SPDX-License-Identifier: Apache-2.0
//
// Kept runs are free memory: fast for the member that keeps them, and there for all others.
#include "arena/kept_runs.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "arena/marks.hpp"
#include "arena/test_session.hpp"
#include "testing/stop_at.hpp"

namespace shoal::arena {
namespace {

constexpr size_t kLarge = 3 * kPage;

uint64_t owner_of(const TestSession& s, Handle run) {
  return s.arena->page(s.arena->page_of(run)).owner.load();
}

// Allocates and frees, so that the member keeps the run.
Handle keep_one(Member& member, size_t bytes = kLarge) {
  const Handle run = member.allocate(bytes);
  member.free(run);
  return run;
}

TEST(KeptRuns, AreAllocatedAgainWithoutTheLock) {
  TestSession s;
  const Handle run = keep_one(*s.me);
  EXPECT_TRUE(is_kept(owner_of(s, run)));
  EXPECT_EQ(kept_by(owner_of(s, run)), s.me->incarnation());
  EXPECT_EQ(kept_pages(owner_of(s, run)), 3U);
  s.arena->check();
  uint64_t locked = 0;
  const bool took =
      testing::stopped_at(1, testing::accesses_to(&s.arena->header().lock, sizeof(uint64_t)),
                          [&] {
                            EXPECT_EQ(s.me->allocate(kLarge), run);
                            s.me->free(run);
                          },
                          {[&] { ++locked; }});
  EXPECT_FALSE(took);
  EXPECT_EQ(locked, 0U);
}

TEST(KeptRuns, CountAsFreeMemory) {
  TestSession s;
  keep_one(*s.me);
  const Statistics now = s.arena->statistics();
  EXPECT_EQ(now.in_use, 0U);
  EXPECT_EQ(now.runs, 0U);
  EXPECT_EQ(now.blocks(), 0U);
  EXPECT_EQ(now.warm_free, now.committed);
}

TEST(KeptRuns, AMemberThatOnlyFreesKeepsNothing) {
  TestSession s;
  const auto consumer = s.join();
  for (uint64_t i = 0; i < 5; ++i) {
    const Handle run = s.me->allocate(kLarge);
    EXPECT_TRUE(s.me->give_to_channel(run, 1, i));
    EXPECT_TRUE(consumer->take_from_channel(run, 1, i));
    consumer->free(run);
    EXPECT_EQ(owner_of(s, run), owner_free());
  }
}

TEST(KeptRuns, AMemberKeepsTwoOfALengthAtMost) {
  TestSession s;
  std::vector<Handle> runs;
  for (int i = 0; i < 5; ++i) runs.push_back(s.me->allocate(kLarge));
  for (const Handle run : runs) s.me->free(run);
  size_t kept = 0;
  for (const Handle run : runs) kept += is_kept(owner_of(s, run)) ? 1 : 0;
  EXPECT_EQ(kept, 2U);
}

TEST(KeptRuns, LongRunsAreNotKept) {
  TestSession s;
  EXPECT_FALSE(is_kept(owner_of(s, keep_one(*s.me, (kLongestKept + 1) * kPage))));
  EXPECT_TRUE(is_kept(owner_of(s, keep_one(*s.me, kLongestKept * kPage))));
}

// As many blocks fit in the session's limit as if no member kept any.
TEST(KeptRuns, OfOthersAreThereForAnAllocationThatWouldFail) {
  constexpr uint64_t kLimit = 16 << 20;
  const auto blocks_that_fit = [](Member& member) {
    uint64_t count = 0;
    try {
      for (;; ++count) (void)member.allocate(kPage);
    } catch (const MemoryExhausted&) {
      return count;
    }
  };
  uint64_t without = 0;
  {
    TestSession s(uint64_t{64} << 20, kLimit);
    without = blocks_that_fit(*s.join());
  }
  TestSession s(uint64_t{64} << 20, kLimit);
  const auto keeper = s.join();
  const Handle kept = keep_one(*keeper, 4 * kPage);
  EXPECT_TRUE(is_kept(owner_of(s, kept)));
  const auto taker = s.join();
  EXPECT_EQ(blocks_that_fit(*taker), without);
  EXPECT_FALSE(is_kept(owner_of(s, kept)));
  s.arena->check();
}

TEST(KeptRuns, AreReleasedByAPurgeOfAnyMember) {
  TestSession s;
  const auto keeper = s.join();
  const Handle run = keep_one(*keeper);
  s.me->purge(60'000'000'000);
  EXPECT_TRUE(is_kept(owner_of(s, run))) << "younger than a minute";
  s.me->purge(0);
  EXPECT_EQ(owner_of(s, run), owner_free());
  EXPECT_EQ(s.arena->statistics().committed, 0U);
  s.arena->check();
}

// The keeper remembers a run that became another run in the meantime, of another length.
TEST(KeptRuns, ARunThatWasReleasedIsNotTakenForTheRememberedOne) {
  TestSession s;
  const auto keeper = s.join();
  const Handle run = keep_one(*keeper);
  s.me->purge(0);
  const Handle longer = keeper->allocate(4 * kPage);
  EXPECT_EQ(longer, run);
  keeper->free(longer);
  EXPECT_TRUE(is_kept(owner_of(s, run)));
  const Handle other = keeper->allocate(kLarge);
  EXPECT_NE(other, run);
  EXPECT_EQ(keeper->allocate(4 * kPage), run);
  s.arena->check();
}

TEST(KeptRuns, LostOnesMakeRoomForOthers) {
  TestSession s;
  std::vector<Handle> runs = {s.me->allocate(kLarge), s.me->allocate(kLarge)};
  for (const Handle run : runs) s.me->free(run);
  s.join()->purge(0);
  runs = {s.me->allocate(kLarge), s.me->allocate(kLarge)};
  for (const Handle run : runs) {
    s.me->free(run);
    EXPECT_TRUE(is_kept(owner_of(s, run)));
  }
}

TEST(KeptRuns, OfADeadMemberAreReaped) {
  TestSession s;
  const auto keeper = s.join();
  const Handle run = keep_one(*keeper);
  const Incarnation dead = keeper->incarnation();
  keeper->abandon_for_test();
  EXPECT_TRUE(reap(*s.arena, *s.me, dead));
  EXPECT_EQ(owner_of(s, run), owner_free());
  s.arena->check();
}

TEST(KeptRuns, AForksChildDoesNotHaveThoseOfItsParent) {
  TestSession s;
  const Handle held = s.me->allocate(64);
  s.me->share(held);  // so that the child is a member
  const Handle run = keep_one(*s.me);
  const int status = in_child([&] {
    const Handle own = s.me->allocate(kLarge);
    return own != run && is_kept(owner_of(s, run)) ? 0 : 1;
  });
  EXPECT_TRUE(succeeded(status));
  EXPECT_EQ(s.me->allocate(kLarge), run);
}

TEST(KeptRuns, TheOwnerWordHasAllItSays) {
  constexpr uint64_t kSecond = 1'234'567;
  const uint64_t word = owner_kept(123'456'789, kLongestKept, kSecond);
  EXPECT_TRUE(is_kept(word));
  EXPECT_EQ(kept_by(word), 123'456'789U);
  EXPECT_EQ(kept_pages(word), kLongestKept);
  EXPECT_EQ(kept_for(word, kSecond), 0U);
  EXPECT_EQ(kept_for(word, kSecond + 30), 30U);
}

}  // namespace
}  // namespace shoal::arena
