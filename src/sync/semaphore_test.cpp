// SPDX-License-Identifier: Apache-2.0
#include "sync/semaphore.hpp"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "sync/child_member_for_test.hpp"
#include "sync/holds.hpp"
#include "testing/deadline.hpp"

namespace shoal::sync {
namespace {

using arena::Arena;
using arena::Member;
using arena::MemberKind;
using testing::Ending;
using testing::in_ms;

class SemaphoreTest : public ::testing::Test {
 protected:
  SemaphoreTest() { register_reap_hooks(); }
  Semaphore make(uint32_t permits, uint32_t limit = Semaphore::kMaxPermits) {
    const arena::Handle block = me_->allocate(sizeof(SemaphoreState));
    Semaphore::create(*arena_, block, permits, limit);
    return {*arena_, block};
  }

  std::shared_ptr<Arena> arena_ = Arena::create({uint64_t{1} << 32, 0});
  std::unique_ptr<Member> me_ = Member::join(arena_, MemberKind::root);
};

TEST_F(SemaphoreTest, CountsPermitsUpToItsLimit) {
  Semaphore s = make(2, 3);
  EXPECT_TRUE(s.try_acquire());
  EXPECT_TRUE(s.try_acquire());
  EXPECT_FALSE(s.try_acquire());
  EXPECT_EQ(s.acquire(*me_, in_ms(20)), WaitResult::timed_out);
  EXPECT_TRUE(s.release(*me_, 3));
  EXPECT_FALSE(s.release(*me_));
  EXPECT_EQ(s.permits(), 3U);
}

TEST_F(SemaphoreTest, NoWakeUpIsLostBetweenManyThreads) {
  Semaphore items = make(0);
  Semaphore space = make(3);
  constexpr int kPairs = 3;
  constexpr int kRounds = 20'000;
  std::vector<std::thread> threads;
  for (int i = 0; i < kPairs; ++i) {
    threads.emplace_back([&] {
      const auto member = Member::join(arena_, MemberKind::process);
      for (int round = 0; round < kRounds; ++round) {
        ASSERT_EQ(space.acquire(*member, in_ms(60'000)), WaitResult::ok);
        ASSERT_TRUE(items.release(*member));
      }
    });
    threads.emplace_back([&] {
      const auto member = Member::join(arena_, MemberKind::process);
      for (int round = 0; round < kRounds; ++round) {
        ASSERT_EQ(items.acquire(*member, in_ms(60'000)), WaitResult::ok);
        ASSERT_TRUE(space.release(*member));
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(items.permits(), 0U);
  EXPECT_EQ(space.permits(), 3U);
}

TEST_F(SemaphoreTest, ReleaseOfManyWakesAsMany) {
  Semaphore s = make(0);
  std::vector<std::thread> threads;
  for (int i = 0; i < 5; ++i) {
    threads.emplace_back([&] {
      const auto member = Member::join(arena_, MemberKind::process);
      EXPECT_EQ(s.acquire(*member, in_ms(60'000)), WaitResult::ok);
    });
  }
  EXPECT_TRUE(s.release(*me_, 2));
  EXPECT_TRUE(s.release(*me_, 3));
  for (auto& thread : threads) thread.join();
}

TEST_F(SemaphoreTest, AWaiterKilledAsItIsWokenPassesTheWakeUpOn) {
  for (int round = 0; round < 40; ++round) {
    Semaphore s = make(0);
    const auto body = [&](Member& member) {
      if (s.acquire(member) != WaitResult::ok) _exit(4);
    };
    ChildMember a(arena_, body);
    ChildMember b(arena_, body);
    usleep(3'000);
    ASSERT_TRUE(s.release(*me_));  // wakes one of them
    usleep(static_cast<useconds_t>(round * 7));
    a.kill();
    const bool a_took_it = a.wait() == Ending::finished;
    arena::reap_all_dead(*arena_, *me_);
    // If the dead member has taken the permit, b needs another one to go on.
    if (a_took_it || s.permits() == 0) {
      ASSERT_TRUE(s.release(*me_));
    }
    ASSERT_EQ(b.wait(10'000), Ending::finished) << "round " << round;
    arena::reap_all_dead(*arena_, *me_);
  }
}

}  // namespace
}  // namespace shoal::sync
