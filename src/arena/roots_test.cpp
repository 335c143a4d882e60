// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "arena/test_session.hpp"
#include "testing/delay.hpp"
#include "testing/kill_point.hpp"

namespace shoal::arena {
namespace {

// Runs `others` before access number `nth` of `operation`. False: it makes fewer accesses.
bool was_stopped(uint64_t nth, const std::function<void()>& operation,
                 const std::function<void()>& others) {
  return testing::delay_once(nth, operation, others) != testing::OtherThread::not_run;
}

std::string long_name(unsigned number) { return std::string(40, 'n') + std::to_string(number); }

TEST(Roots, AreSetOnceFromWhatIsExpected) {
  TestSession s;
  EXPECT_EQ(s.arena->root_get("channel.a"), 0U);
  EXPECT_EQ(s.me->set_root("channel.a", 64), RootSet::done);
  EXPECT_EQ(s.me->set_root("channel.a", 128), RootSet::differs);
  EXPECT_EQ(s.me->set_root("channel.a", 128, 64), RootSet::done);
  EXPECT_EQ(s.me->set_root("channel.b", 192, 64), RootSet::differs);
  EXPECT_EQ(s.me->set_root("channel.b", 192), RootSet::done);
  EXPECT_EQ(s.arena->root_get("channel.a"), 128U);
  EXPECT_EQ(s.arena->root_get("channel"), 0U);
  EXPECT_THROW(s.arena->root_get(""), std::invalid_argument);
  EXPECT_THROW((void)s.me->set_root(std::string(49, 'x').c_str(), 64), std::invalid_argument);
}

TEST(Roots, HoldSixtyFourNamesThatDifferAnywhere) {
  TestSession s;
  for (unsigned i = 0; i < kRoots; ++i)
    EXPECT_EQ(s.me->set_root(long_name(i).c_str(), 64 * (i + 1)), RootSet::done);
  EXPECT_EQ(s.me->set_root("one too many", 64), RootSet::full);
  for (unsigned i = 0; i < kRoots; ++i)
    EXPECT_EQ(s.arena->root_get(long_name(i).c_str()), 64 * (i + 1));
}

TEST(Roots, NamesThatWereRemovedMakeRoomForOthers) {
  TestSession s;
  for (unsigned i = 0; i + 1 < kRoots; ++i)
    ASSERT_EQ(s.me->set_root(long_name(i).c_str(), 64), RootSet::done);
  for (unsigned i = 0; i < 4 * kRoots; ++i) {
    const std::string name = "name " + std::to_string(i);
    ASSERT_EQ(s.me->set_root(name.c_str(), 128), RootSet::done) << i;
    ASSERT_EQ(s.me->set_root(name.c_str(), 0, 128), RootSet::done) << i;
    ASSERT_EQ(s.arena->root_get(name.c_str()), 0U);
  }
  EXPECT_EQ(s.arena->root_get(long_name(0).c_str()), 64U);
}

TEST(Roots, SetByManyAtOnceHaveOneWinner) {
  TestSession s;
  for (int round = 0; round < 30; ++round) {
    const std::string name = "contended.name." + std::to_string(round);
    os::Atomic<uint32_t> wins;
    std::vector<std::thread> threads;
    for (unsigned t = 1; t <= 4; ++t)
      threads.emplace_back([&, t] {
        if (s.me->set_root(name.c_str(), 64 * t) == RootSet::done) wins.fetch_add(1);
      });
    for (std::thread& t : threads) t.join();
    EXPECT_EQ(wins.load(), 1U);
    EXPECT_NE(s.arena->root_get(name.c_str()), 0U);
  }
}

// A reader is stopped at each of its accesses while its entry is given another name and handle.
TEST(Roots, AReaderThatIsLateSeesNoOtherNamesHandle) {
  const std::string old_name = std::string(24, 'a') + std::string(24, '1');
  const std::string new_name = std::string(24, 'b') + std::string(24, '2');
  const std::string never = std::string(24, 'a') + std::string(24, '2');  // half of each
  for (const std::string& wanted : {old_name, new_name, never}) {
    bool stopped = true;
    for (unsigned nth = 1; stopped; ++nth) {
      TestSession s;
      ASSERT_EQ(s.me->set_root(old_name.c_str(), 64), RootSet::done);
      Handle found = 0;
      stopped = was_stopped(
          nth, [&] { found = s.arena->root_get(wanted.c_str()); },
          [&] {
            EXPECT_EQ(s.me->set_root(old_name.c_str(), 0, 64), RootSet::done);
            EXPECT_EQ(s.me->set_root(new_name.c_str(), 128), RootSet::done);
          });
      EXPECT_TRUE(found == 0 || wanted != never) << "stopped before access " << nth;
      EXPECT_TRUE(found != 64 || wanted == old_name) << "stopped before access " << nth;
      EXPECT_TRUE(found != 128 || wanted == new_name) << "stopped before access " << nth;
      EXPECT_EQ(s.arena->root_get(new_name.c_str()), 128U);
    }
  }
}

// A writer is stopped at each of its accesses: no reader sees a handle under a name that is not the
// handle's.
TEST(Roots, AWriterThatIsLateShowsNoHalfName) {
  const std::string old_name = std::string(24, 'a') + std::string(24, '1');
  const std::string new_name = std::string(24, 'b') + std::string(24, '2');
  const std::string half = std::string(24, 'b') + std::string(24, '1');
  bool stopped = true;
  for (unsigned nth = 1; stopped; ++nth) {
    TestSession s;
    ASSERT_EQ(s.me->set_root(old_name.c_str(), 64), RootSet::done);
    stopped = was_stopped(
        nth,
        [&] {
          EXPECT_EQ(s.me->set_root(old_name.c_str(), 0, 64), RootSet::done);
          EXPECT_EQ(s.me->set_root(new_name.c_str(), 128), RootSet::done);
        },
        [&] {
          EXPECT_EQ(s.arena->root_get(half.c_str()), 0U) << "stopped before access " << nth;
          const Handle old_handle = s.arena->root_get(old_name.c_str());
          EXPECT_TRUE(old_handle == 0 || old_handle == 64) << "stopped before access " << nth;
          const Handle new_handle = s.arena->root_get(new_name.c_str());
          EXPECT_TRUE(new_handle == 0 || new_handle == 128) << "stopped before access " << nth;
        });
  }
}

TEST(Roots, ADeathAtAnyStoreUsesUpNoName) {
  for (const char* const point :
       {"arena.root.version", "arena.root.name", "arena.root.set", "arena.root.change"}) {
    for (unsigned nth = 1; nth <= kRootNameWords; ++nth) {
      TestSession s;
      const int status = in_child([&] {
        const auto child = s.join();
        testing::arm_kill_point(point, nth);
        (void)child->set_root("of the dead", 64);
        (void)child->set_root("of the dead", 0, 64);
        return 0;
      });
      ASSERT_TRUE(killed(status) || succeeded(status));
      reap_all_dead(*s.arena, *s.me);
      const Handle left = s.arena->root_get("of the dead");
      EXPECT_TRUE(left == 0 || left == 64) << point << " " << nth;
      EXPECT_EQ(s.me->set_root("of the dead", 0, left), RootSet::done);
      for (unsigned i = 0; i < kRoots; ++i)
        ASSERT_EQ(s.me->set_root(long_name(i).c_str(), 64), RootSet::done) << point << " " << nth;
    }
  }
}

}  // namespace
}  // namespace shoal::arena
