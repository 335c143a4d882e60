// SPDX-License-Identifier: Apache-2.0
#include "arena/runs.hpp"

#include <gtest/gtest.h>

#include <cstring>

#include "arena/lock.hpp"
#include "arena/page_search.hpp"
#include "arena/test_session.hpp"

namespace shoal::arena {
namespace {

constexpr size_t kMiB = 1 << 20;

TEST(Runs, LargeOnesStartAtHugePages) {
  TestSession s;
  (void)s.me->allocate(kPage);
  EXPECT_EQ(s.arena->handle_of(s.arena->address(s.me->allocate(2 * kMiB))) % (2 * kMiB), 0U);
  EXPECT_EQ(s.me->allocate(3 * kMiB) % (2 * kMiB), 0U);
}

TEST(Runs, AllocatedAndFreedInALoopAreTheSameWarmPages) {
  TestSession s;
  const Handle first = s.me->allocate(50 * kMiB);
  s.me->free(first);
  const uint64_t committed = s.arena->statistics().committed;
  for (int i = 0; i < 20; ++i) {
    const Handle b = s.me->allocate(50 * kMiB);
    EXPECT_EQ(b, first);
    s.me->free(b);
  }
  EXPECT_EQ(s.arena->statistics().committed, committed);
}

TEST(Runs, SettleOnTheirPagesWithSmallBlocksInBetween) {
  TestSession s(uint64_t{1} << 30);
  constexpr int kRounds = 100;
  for (int i = 0; i < kRounds; ++i) {
    const Handle b = s.me->allocate(40 * kMiB);
    (void)s.me->allocate(2 * kPage);
    s.me->free(b);
    (void)s.me->allocate(2 * kPage);
  }
  EXPECT_LE(s.arena->statistics().committed, 2 * 40 * kMiB + kRounds * 4 * kPage + 16 * kMiB);
}

TEST(Runs, NeighboursMergeWhenFree) {
  TestSession s;
  std::vector<Handle> runs;
  for (int i = 0; i < 64; ++i) runs.push_back(s.me->allocate(kMiB));
  const uint64_t committed = s.arena->statistics().committed;
  for (const Handle b : runs) s.me->free(b);
  s.me->free(s.me->allocate(60 * kMiB));
  EXPECT_EQ(s.arena->statistics().committed, committed);
}

TEST(Memory, RunsOutWithFiguresAndTheSessionLives) {
  TestSession s(uint64_t{1} << 30, 64 * kMiB);
  const Handle kept = s.me->allocate(30 * kMiB);
  try {
    (void)s.me->allocate(50 * kMiB);
    FAIL() << "more than the limit was given";
  } catch (const MemoryExhausted& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("50.0 MiB"), std::string::npos) << text;
    EXPECT_NE(text.find("64.0 MiB"), std::string::npos) << text;
    EXPECT_NE(text.find("SHOAL_MEMORY_LIMIT"), std::string::npos) << text;
  }
  s.arena->check();
  EXPECT_LE(s.arena->statistics().committed, 64 * kMiB);
  s.me->free(kept);
  const Handle after = s.me->allocate(50 * kMiB);
  std::memset(s.arena->address(after), 1, 50 * kMiB);
  s.me->free(after);
  std::vector<Handle> small;
  EXPECT_THROW(while (true) small.push_back(s.me->allocate(1000)), MemoryExhausted);
  EXPECT_GT(small.size(), 50'000U);
  for (const Handle b : small) s.me->free(b);
  EXPECT_EQ(s.blocks(), 0U);
  s.arena->check();
}

// Nobody else reaps in a program without pools and queues.
TEST(Memory, OfDeadMembersIsTakenBackBeforeAnAllocationFails) {
  TestSession s(uint64_t{1} << 30, 64 * kMiB);
  const auto dead = s.join();
  (void)dead->allocate(40 * kMiB);
  dead->abandon_for_test();
  const Handle b = s.me->allocate(40 * kMiB);
  EXPECT_NE(b, 0U);
  s.me->free(b);
  const auto other = s.join();
  std::vector<Handle> small;
  EXPECT_THROW(while (true) small.push_back(other->allocate(1000)), MemoryExhausted);
  other->abandon_for_test();
  EXPECT_NO_THROW(s.me->free(s.me->allocate(1000)));
}

TEST(Memory, RunsOutOfReserve) {
  TestSession s(64 * kMiB);
  EXPECT_THROW((void)s.me->allocate(100 * kMiB), MemoryExhausted);
  EXPECT_THROW((void)s.me->allocate(SIZE_MAX), MemoryExhausted);
  EXPECT_THROW(while (true)(void) s.me->allocate(kMiB), MemoryExhausted);
  s.arena->check();
}

TEST(Memory, FreeForLongIsGivenBackAndReadsAsZeroAfterwards) {
  TestSession s;
  const Handle b = s.me->allocate(20 * kMiB);
  std::memset(s.arena->address(b), 1, 20 * kMiB);
  s.me->free(b);
  EXPECT_EQ(s.me->purge(int64_t{3600} * 1'000'000'000), 0U);
  EXPECT_GE(s.me->purge(0), 20 * kMiB);
  EXPECT_LE(s.arena->statistics().committed, 2 * kMiB);
  const Handle again = s.me->allocate(20 * kMiB);
  EXPECT_EQ(*s.arena->at<char>(again), 0);
  s.arena->check();
}

TEST(Memory, OfEmptySpansIsGivenBack) {
  TestSession s;
  std::vector<Handle> blocks;
  for (int i = 0; i < 20'000; ++i) blocks.push_back(s.me->allocate(1000));
  for (const Handle b : blocks) s.me->free(b);
  s.me->purge(0);
  EXPECT_LE(s.arena->statistics().committed, 4 * kMiB);
}

TEST(PageSearch, FindsTheSmallestWarmExtentThatFits) {
  os::Atomic<uint64_t> used[4] = {};
  os::Atomic<uint64_t> warm[4] = {};
  const Bitmaps maps{used, warm, 256, 1024};
  for (os::Atomic<uint64_t>& w : warm) w.store(~uint64_t{0});
  for (os::Atomic<uint64_t>& u : used) u.store(~uint64_t{0});
  used[0].store(~(uint64_t{0xFF} << 8));  // pages 8..15 free
  used[2].store(~(uint64_t{0x7} << 62));  // pages 190, 191 free
  EXPECT_EQ(find_warm(maps, 2, 1), 190U);
  EXPECT_EQ(find_warm(maps, 3, 1), 8U);
  EXPECT_EQ(find_warm(maps, 9, 1), kNoPage);
  EXPECT_EQ(find_any(maps, 9, 1), 256U);
  EXPECT_EQ(find_any(maps, 768, 1), 256U);
  EXPECT_EQ(find_any(maps, 769, 1), kNoPage);
  used[3].store(0);
  EXPECT_EQ(find_warm(maps, 64, 64), 192U);
  EXPECT_EQ(find_any(maps, 769, 1), 190U);
  warm[3].store(0);
  EXPECT_EQ(find_warm(maps, 9, 1), kNoPage);
}

TEST(RunsLock, IsTakenOverFromADeadHolder) {
  TestSession s;
  const auto victim = s.join();
  s.arena->header().lock.store(victim->incarnation());
  victim->abandon_for_test();
  EXPECT_NE(s.me->allocate(kMiB), 0U);
  EXPECT_EQ(s.arena->header().lock.load(), 0U);
}

TEST(RunsLock, ExcludesProcessesThatTakeItByTurns) {
  TestSession s;
  const Handle area = s.me->allocate(64);
  auto* counter = s.arena->at<uint64_t>(area);  // plain on purpose: the lock must guard it
  *counter = 0;
  const auto work = [&] {
    const auto me = s.join();
    for (int i = 0; i < 20'000; ++i) {
      const RunsLock lock(*s.arena, me->incarnation());
      *counter = *counter + 1;
    }
    return 0;
  };
  const pid_t child = fork();
  if (child == 0) _exit(work());
  work();
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(succeeded(status));
  EXPECT_EQ(*counter, 40'000U);
}

}  // namespace
}  // namespace shoal::arena
