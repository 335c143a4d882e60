// SPDX-License-Identifier: Apache-2.0
#include "sync/barrier.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "sync/child_member_for_test.hpp"
#include "sync/holds.hpp"
#include "testing/deadline.hpp"
#include "testing/kill_point.hpp"

namespace shoal::sync {
namespace {

using arena::Arena;
using arena::Member;
using arena::MemberKind;
using testing::Ending;
using testing::in_ms;

// Arrives and waits, without an action. Returns the party's index, or -1 if the barrier is broken.
int pass(Barrier barrier, Member& member, int64_t deadline_ns = kForever) {
  const Barrier::Arrival arrival = barrier.arrive(member, false, deadline_ns);
  if (arrival.came == Barrier::Came::passed) return static_cast<int>(arrival.index);
  if (arrival.came != Barrier::Came::waits) return -1;
  WaitResult how = WaitResult::interrupted;
  while (how == WaitResult::interrupted) how = barrier.wait(member, arrival, deadline_ns);
  const Barrier::Left left = barrier.end_wait(member, arrival, how);
  return left == Barrier::Left::passed ? static_cast<int>(arrival.index) : -1;
}

class BarrierTest : public ::testing::Test {
 protected:
  BarrierTest() { register_reap_hooks(); }
  Barrier make(uint32_t parties) {
    const arena::Handle block = me_->allocate(Barrier::size_for(parties));
    Barrier::create(*arena_, block, parties);
    return {*arena_, block};
  }
  void wait_for_waiters(const Barrier& barrier, uint32_t count) {
    while (barrier.waiting() < count) std::this_thread::yield();
  }

  std::shared_ptr<Arena> arena_ = Arena::create({uint64_t{1} << 32, 0});
  std::unique_ptr<Member> me_ = Member::join(arena_, MemberKind::root);
};

TEST_F(BarrierTest, LetsAllPassTogetherManyTimes) {
  constexpr int kParties = 3;
  constexpr int kRounds = 500;
  Barrier barrier = make(kParties);
  std::atomic<int> came{0};
  std::atomic<int> sum{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kParties; ++t) {
    threads.emplace_back([&, t] {
      const auto own = t == 0 ? nullptr : Member::join(arena_, MemberKind::process);
      Member& member = own ? *own : *me_;
      for (int round = 1; round <= kRounds; ++round) {
        came.fetch_add(1);
        const int index = pass(barrier, member);
        ASSERT_GE(index, 0);
        sum.fetch_add(index);
        EXPECT_GE(came.load(), round * kParties);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(sum.load(), kRounds * (0 + 1 + 2));
  EXPECT_EQ(barrier.waiting(), 0U);
  EXPECT_FALSE(barrier.broken());
}

TEST_F(BarrierTest, ATimeoutBreaksItAndAResetMakesItNew) {
  Barrier barrier = make(2);
  EXPECT_EQ(pass(barrier, *me_, in_ms(20)), -1);
  EXPECT_TRUE(barrier.broken());
  EXPECT_EQ(pass(barrier, *me_), -1);
  barrier.reset(*me_);
  EXPECT_FALSE(barrier.broken());
  std::thread other([&] { EXPECT_GE(pass(barrier, *me_), 0); });
  EXPECT_GE(pass(barrier, *me_), 0);
  other.join();
}

TEST_F(BarrierTest, AbortAndResetWakeThoseWhoWait) {
  Barrier barrier = make(3);
  for (const bool reset : {false, true}) {
    std::thread waiter([&] { EXPECT_EQ(pass(barrier, *me_), -1); });
    wait_for_waiters(barrier, 1);
    reset ? barrier.reset(*me_) : barrier.abort(*me_);
    waiter.join();
    EXPECT_EQ(barrier.broken(), !reset);
    barrier.reset(*me_);
  }
}

TEST_F(BarrierTest, TheLastOneActsBeforeAnybodyPasses) {
  Barrier barrier = make(2);
  for (const bool succeeds : {true, false}) {
    std::atomic<int> passed{-2};
    std::thread waiter([&] { passed.store(pass(barrier, *me_)); });
    wait_for_waiters(barrier, 1);
    const Barrier::Arrival last = barrier.arrive(*me_, true, kForever);
    ASSERT_EQ(last.came, Barrier::Came::last);
    EXPECT_EQ(last.index, 1U);
    EXPECT_EQ(passed.load(), -2);
    std::thread early([&] {  // a party of the next round: waits until the action has ended
      EXPECT_EQ(pass(barrier, *me_, in_ms(300)), -1);
    });
    EXPECT_EQ(barrier.finish(*me_, last, succeeds), succeeds);
    waiter.join();
    EXPECT_EQ(passed.load(), succeeds ? 0 : -1);
    early.join();
    barrier.reset(*me_);
  }
}

TEST_F(BarrierTest, ADeadPartyBreaksIt) {
  Barrier barrier = make(3);
  ChildMember victim(arena_, [&](Member& member) { static_cast<void>(pass(barrier, member)); });
  wait_for_waiters(barrier, 1);
  std::thread waiter([&] { EXPECT_EQ(pass(barrier, *me_), -1); });
  wait_for_waiters(barrier, 2);
  victim.kill();
  waiter.join();  // only the waiter itself reaps
  EXPECT_TRUE(barrier.broken());
  EXPECT_EQ(Holds::of(*me_).used_for_test(), 0);
}

// Two parties, one of which dies at the point; the other passes or finds the barrier broken.
TEST_F(BarrierTest, IsUsableAfterADeathAtEachKillPoint) {
  for (const std::string& point : testing::kill_point_names()) {
    if (!point.starts_with("barrier.") || point == "barrier.reap.slot") continue;
    SCOPED_TRACE(point);
    Barrier barrier = make(2);
    const auto rounds = [&](Member& member) {
      for (int i = 0; i < 20; ++i) {
        if (pass(barrier, member) >= 0) continue;
        barrier.reset(member);
        return;
      }
      barrier.abort(member);
    };
    ChildMember victim(arena_, [&](Member& member) {
      testing::arm_kill_point(point.c_str(), 3);
      rounds(member);
      barrier.abort(member);
      barrier.abort(member);
      barrier.abort(member);
    });
    ChildMember partner(arena_, rounds);
    EXPECT_EQ(victim.wait(), Ending::killed);
    EXPECT_EQ(partner.wait(20'000), Ending::finished);
    arena::reap_all_dead(*arena_, *me_);
    barrier.reset(*me_);
    std::thread other([&] { EXPECT_GE(pass(barrier, *me_), 0); });
    EXPECT_GE(pass(barrier, *me_), 0);
    other.join();
  }
}

TEST_F(BarrierTest, AReaperThatDiesIsMadeUpFor) {
  Barrier barrier = make(3);
  ChildMember party(arena_, [&](Member& member) { static_cast<void>(pass(barrier, member)); });
  wait_for_waiters(barrier, 1);
  party.kill();
  EXPECT_EQ(party.wait(), Ending::killed);
  ChildMember reaper(arena_, [&](Member& member) {
    testing::arm_kill_point("barrier.reap.slot", 1);
    arena::reap_all_dead(*arena_, member);
  });
  EXPECT_EQ(reaper.wait(), Ending::killed);
  arena::reap_all_dead(*arena_, *me_);
  EXPECT_TRUE(barrier.broken());
  EXPECT_EQ(pass(barrier, *me_), -1);
}

}  // namespace
}  // namespace shoal::sync
