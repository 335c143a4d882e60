// SPDX-License-Identifier: Apache-2.0
#include "sync/mutex.hpp"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "sync/child_member_for_test.hpp"
#include "sync/recursive_mutex.hpp"
#include "testing/deadline.hpp"

namespace shoal::sync {
namespace {

using arena::Arena;
using arena::Member;
using arena::MemberKind;
using testing::Ending;
using testing::in_ms;

class MutexTest : public ::testing::Test {
 protected:
  MutexTest() {
    register_reap_hooks();
    block_ = me_->allocate(4096);
    Mutex::create(*arena_, block_);
    counters_[0] = 0;
    counters_[1] = 0;
  }
  Mutex mutex() { return {*arena_, block_}; }

  std::shared_ptr<Arena> arena_ = Arena::create({uint64_t{1} << 32, 0});
  std::unique_ptr<Member> me_ = Member::join(arena_, MemberKind::root);
  arena::Handle block_ = 0;
  volatile uint64_t* const counters_ = [this] {
    return arena_->at<volatile uint64_t>(me_->allocate(64));
  }();
};

TEST_F(MutexTest, ExcludesThreadsOfSeveralMembers) {
  constexpr int kThreads = 4;
  constexpr int kRounds = 20'000;
  uint64_t counter = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      const auto member = Member::join(arena_, MemberKind::process);
      Mutex m = mutex();
      for (int round = 0; round < kRounds; ++round) {
        ASSERT_EQ(m.lock(*member), Locked::ok);
        ++counter;
        ASSERT_EQ(m.unlock(*member), Unlocked::ok);
      }
      EXPECT_EQ(Holds::of(*member).used_for_test(), 0);
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(counter, kThreads * kRounds);
  EXPECT_EQ(mutex().owner(), 0U);
}

TEST_F(MutexTest, ExcludesThreadsOfOneMember) {
  uint64_t counter = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      Mutex m = mutex();
      for (int round = 0; round < 10'000; ++round) {
        ASSERT_EQ(m.lock(*me_), Locked::ok);
        ++counter;
        m.unlock(*me_);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(counter, 40'000U);
  EXPECT_EQ(Holds::of(*me_).used_for_test(), 0);
}

TEST_F(MutexTest, TryLockIsBusyAndLockTimesOutWhileAnotherHasIt) {
  const auto other = Member::join(arena_, MemberKind::process);
  Mutex m = mutex();
  ASSERT_EQ(m.lock(*other), Locked::ok);
  EXPECT_EQ(m.try_lock(*me_), Locked::busy);
  const int64_t deadline_ns = in_ms(30);
  EXPECT_EQ(m.lock(*me_, deadline_ns), Locked::timed_out);
  EXPECT_GE(os::monotonic_ns(), deadline_ns);
  EXPECT_EQ(m.unlock(*other), Unlocked::ok);
  EXPECT_EQ(m.unlock(*other), Unlocked::not_locked);
  EXPECT_EQ(m.try_lock(*me_), Locked::ok);
  m.unlock(*me_);
}

TEST_F(MutexTest, NextOwnerIsToldThatThePreviousOneDied) {
  Mutex m = mutex();
  ChildMember child(arena_, [&](Member& member) {
    EXPECT_EQ(m.lock(member), Locked::ok);
    ::kill(getpid(), SIGKILL);
  });
  ASSERT_EQ(child.wait(), Ending::killed);
  EXPECT_EQ(m.lock(*me_, in_ms(20'000)), Locked::owner_died);  // found by the waiter's tick
  EXPECT_EQ(m.deaths(), 1U);
  EXPECT_EQ(m.unlock(*me_), Unlocked::ok);
  EXPECT_EQ(m.lock(*me_), Locked::ok);  // told once
  m.unlock(*me_);
}

TEST_F(MutexTest, OrderlyExitWithALockHeldCountsAsDeath) {
  Mutex m = mutex();
  {
    const auto other = Member::join(arena_, MemberKind::process);
    ASSERT_EQ(m.lock(*other), Locked::ok);
    other->leave();
  }
  EXPECT_EQ(m.lock(*me_, in_ms(20'000)), Locked::owner_died);
  m.unlock(*me_);
}

TEST_F(MutexTest, ReleaseByAnotherMemberHandsOffAndDeathsThenRestoreNothing) {
  const auto other = Member::join(arena_, MemberKind::process);
  Mutex m = mutex();
  ASSERT_EQ(m.lock(*other), Locked::ok);
  EXPECT_EQ(m.unlock(*me_), Unlocked::handed_off);
  EXPECT_TRUE(m.handed_off());
  ASSERT_EQ(m.lock(*other), Locked::ok);
  other->abandon_for_test();
  arena::reap_all_dead(*arena_, *me_);
  EXPECT_EQ(m.lock(*me_, in_ms(400)), Locked::timed_out);
  EXPECT_EQ(m.unlock(*me_), Unlocked::handed_off);  // any member may release it
  EXPECT_EQ(m.lock(*me_), Locked::ok);
  m.unlock(*me_);
}

TEST_F(MutexTest, MoreLocksThanHeldWordsStillSurviveTheirOwner) {
  constexpr size_t kLocks = 80;
  std::vector<arena::Handle> blocks;
  for (size_t i = 0; i < kLocks; ++i) {
    blocks.push_back(me_->allocate(sizeof(MutexState)));
    Mutex::create(*arena_, blocks.back());
  }
  ChildMember child(arena_, [&](Member& member) {
    for (const arena::Handle block : blocks) {
      if (Mutex(*arena_, block).lock(member) != Locked::ok) _exit(3);
    }
    ::kill(getpid(), SIGKILL);
  });
  ASSERT_EQ(child.wait(), Ending::killed);
  for (const arena::Handle block : blocks) {
    Mutex m(*arena_, block);
    EXPECT_EQ(m.lock(*me_, in_ms(20'000)), Locked::owner_died);
    EXPECT_EQ(m.unlock(*me_), Unlocked::ok);
  }
}

TEST_F(MutexTest, SurvivesRandomKillsOfItsUsers) {
  for (int round = 0; round < 30; ++round) {
    Mutex m = mutex();
    const auto body = [&](Member& member) {
      for (;;) {
        const Locked locked = m.lock(member);
        if (!is_locked(locked)) continue;
        if (locked == Locked::owner_died) counters_[1] = counters_[0];  // repair
        if (counters_[0] != counters_[1]) _exit(7);
        counters_[0] = counters_[0] + 1;
        counters_[1] = counters_[1] + 1;
        if (m.unlock(member) != Unlocked::ok) _exit(8);
        if (counters_[0] > 100'000'000) return;
      }
    };
    ChildMember a(arena_, body);
    ChildMember b(arena_, body);
    ChildMember c(arena_, body);
    usleep(static_cast<useconds_t>(2'000 + round * 137 % 3'000));
    a.kill();
    usleep(static_cast<useconds_t>(round * 251 % 4'000));
    b.kill();
    EXPECT_EQ(a.wait(), Ending::killed);
    EXPECT_EQ(b.wait(), Ending::killed);
    const Locked locked = m.lock(*me_, in_ms(20'000));
    ASSERT_TRUE(is_locked(locked)) << "round " << round;
    if (locked == Locked::owner_died) counters_[1] = counters_[0];
    ASSERT_EQ(counters_[0], counters_[1]);
    m.unlock(*me_);
    const uint64_t before = counters_[0];
    const int64_t end_ns = in_ms(20'000);
    while (counters_[0] == before && os::monotonic_ns() < end_ns) usleep(100);
    ASSERT_NE(counters_[0], before) << "the survivor hangs, round " << round;
    c.kill();
    EXPECT_EQ(c.wait(), Ending::killed);
    arena::reap_all_dead(*arena_, *me_);
    if (m.lock(*me_, in_ms(5'000)) == Locked::owner_died) counters_[1] = counters_[0];
    ASSERT_EQ(m.unlock(*me_), Unlocked::ok);
  }
}

TEST_F(MutexTest, RecursiveMutexBelongsToItsThread) {
  RecursiveMutex m(*arena_, block_);
  EXPECT_EQ(m.lock(*me_), Locked::ok);
  EXPECT_EQ(m.lock(*me_), Locked::ok);
  EXPECT_EQ(m.depth(), 2U);
  std::thread([&] {
    EXPECT_EQ(m.lock(*me_, 0), Locked::busy);
    EXPECT_EQ(m.unlock(*me_), Unlocked::not_locked);
  }).join();
  EXPECT_EQ(m.unlock(*me_), Unlocked::ok);
  EXPECT_TRUE(m.is_mine(*me_));
  EXPECT_EQ(m.unlock(*me_), Unlocked::ok);
  EXPECT_EQ(m.unlock(*me_), Unlocked::not_locked);
  EXPECT_EQ(m.mutex().owner(), 0U);
}

TEST_F(MutexTest, ACorruptHandleThrows) {
  EXPECT_THROW(Mutex(*arena_, block_ + 64), arena::CorruptArena);
  EXPECT_THROW(Mutex(*arena_, uint64_t{1} << 50), arena::CorruptArena);
  EXPECT_THROW(Mutex(*arena_, block_ + 8), arena::CorruptArena);
}

}  // namespace
}  // namespace shoal::sync
