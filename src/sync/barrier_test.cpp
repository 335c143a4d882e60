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
#include "testing/stop_at.hpp"

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
    block_ = me_->allocate(Barrier::size_for(parties));
    Barrier::create(*arena_, block_, parties);
    return {*arena_, block_};
  }
  void wait_for_waiters(const Barrier& barrier, uint32_t count) {
    while (barrier.waiting() < count) std::this_thread::yield();
  }

  std::shared_ptr<Arena> arena_ = Arena::create({uint64_t{1} << 32, 0});
  std::unique_ptr<Member> me_ = Member::join(arena_, MemberKind::root);
  arena::Handle block_ = 0;  // of the barrier made last
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
    // There the dead party had left, so its death breaks nothing.
    if (point == "barrier.leave.slot") barrier.abort(*me_);
    EXPECT_EQ(partner.wait(20'000), Ending::finished);
    arena::reap_all_dead(*arena_, *me_);
    barrier.reset(*me_);
    std::thread other([&] { EXPECT_GE(pass(barrier, *me_), 0); });
    EXPECT_GE(pass(barrier, *me_), 0);
    other.join();
  }
}

// The party was in a generation that is broken already. Its slot is still there, as when a member
// that dropped it was stopped in between.
TEST_F(BarrierTest, ADeathBreaksItOnlyOnce) {
  Barrier barrier = make(3);
  const auto dead = Member::join(arena_, MemberKind::process);
  (void)barrier.arrive(*dead, false, kForever);
  barrier.abort(*me_);
  const arena::Incarnation number = dead->incarnation();
  barrier.reset(*me_);
  const Barrier::Arrival next = barrier.arrive(*me_, false, kForever);
  dead->abandon_for_test();
  EXPECT_TRUE(arena::reap(*arena_, *me_, number));
  EXPECT_FALSE(barrier.broken());
  EXPECT_EQ(barrier.waiting(), 1U);
  EXPECT_EQ(barrier.wait(*me_, next, in_ms(1)), WaitResult::timed_out);
  (void)barrier.end_wait(*me_, next, WaitResult::timed_out);
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

// The last party is killed at a kill point, and another member reaps it before the waiter's tick.
TEST_F(BarrierTest, TheWaiterGoesOnWhenTheLastPartyDiesAndAnotherMemberReapsIt) {
  for (const std::string& point : testing::kill_point_names()) {
    if (!point.starts_with("barrier.") && !point.starts_with("mutex.")) continue;
    SCOPED_TRACE(point);
    Barrier barrier = make(2);
    ChildMember waiter(arena_, [&](Member& member) { static_cast<void>(pass(barrier, member)); });
    wait_for_waiters(barrier, 1);
    ChildMember victim(arena_, [&](Member& member) {
      testing::arm_kill_point(point.c_str(), 1);
      static_cast<void>(pass(barrier, member));
    });
    static_cast<void>(victim.wait());
    arena::reap_all_dead(*arena_, *me_);
    // True if the dead party had not arrived.
    if (barrier.waiting() != 0) static_cast<void>(pass(barrier, *me_));
    EXPECT_EQ(waiter.wait(10'000), Ending::finished);
    arena::reap_all_dead(*arena_, *me_);
  }
}

// One party is stopped at each of its accesses in turn. The waiter and a third party, whose
// deadline is near, continue.
TEST_F(BarrierTest, AStoppedPartyHoldsNobodyUp) {
  static uint64_t accesses_left = 0;
  bool stopped = true;
  for (uint64_t before = 1; stopped; ++before) {
    SCOPED_TRACE(before);
    Barrier barrier = make(2);
    ChildMember waiter(arena_, [&](Member& member) { static_cast<void>(pass(barrier, member)); });
    wait_for_waiters(barrier, 1);
    const arena::Handle flag = me_->allocate(64);
    auto& ended = *new (arena_->address(flag)) os::Atomic<uint32_t>;
    ChildMember party(arena_, [&](Member& member) {
      Holds::of(member);
      accesses_left = before;
      os::access_hook = [](const void*) {
        if (--accesses_left == 0) ::raise(SIGSTOP);
      };
      static_cast<void>(pass(barrier, member));
      os::access_hook = nullptr;
      ended.store(1);
    });
    siginfo_t info{};
    waitid(P_PID, static_cast<id_t>(party.pid()), &info, WEXITED | WSTOPPED | WNOWAIT);
    stopped = ended.load() == 0;
    ChildMember third(arena_,
                      [&](Member& member) { static_cast<void>(pass(barrier, member, in_ms(1))); });
    EXPECT_EQ(third.wait(10'000), Ending::finished);
    // The waiter passes, or the third party has broken the barrier.
    EXPECT_EQ(waiter.wait(10'000), Ending::finished);
    party.kill();
    static_cast<void>(party.wait());
    arena::reap_all_dead(*arena_, *me_);
    barrier.reset(*me_);
  }
}

TEST_F(BarrierTest, APartyWithoutASlotKeepsItsDeadline) {
  Barrier barrier = make(2);
  ChildMember child(arena_, [&](Member& member) {
    for (uint32_t i = 0; i < 2 * 2 + 16; ++i) {  // all parties are released, and do not leave
      const Barrier::Arrival waits = barrier.arrive(member, false, kForever);
      if (waits.came != Barrier::Came::waits) _exit(3);
      const Barrier::Arrival last = barrier.arrive(member, false, in_ms(20));
      if (last.came == Barrier::Came::timed_out) _exit(0);
      if (last.came != Barrier::Came::passed) _exit(4);
    }
    const Barrier::Arrival late = barrier.arrive(member, false, in_ms(20));
    _exit(late.came == Barrier::Came::timed_out ? 0 : 5);
  });
  EXPECT_EQ(child.wait(10'000), Ending::finished);
}

TEST_F(BarrierTest, AMemberThatFindsADeathTooLateBreaksNoLaterGeneration) {
  Barrier barrier = make(2);
  uint64_t before = 1;
  for (bool stopped = true; stopped; ++before) {
    SCOPED_TRACE(before);
    const auto dying = Member::join(arena_, MemberKind::process);
    const arena::Incarnation dead = dying->incarnation();
    ASSERT_EQ(barrier.arrive(*dying, false, kForever).came, Barrier::Came::waits);
    dying->abandon_for_test();
    bool passed = true;
    stopped = testing::stopped_at(
        before, [&] { Barrier::reap(*arena_, *me_, dead, block_); },
        [&] {
          Barrier::reap(*arena_, *me_, dead, block_);
          barrier.reset(*me_);
          const Barrier::Arrival mine = barrier.arrive(*me_, false, kForever);
          passed = barrier.arrive(*me_, false, kForever).came == Barrier::Came::passed;
          passed = passed && barrier.end_wait(*me_, mine, WaitResult::ok) == Barrier::Left::passed;
        });
    EXPECT_TRUE(passed);
    EXPECT_EQ(barrier.broken(), !stopped);
    arena::reap_all_dead(*arena_, *me_);
    barrier.reset(*me_);
  }
  EXPECT_GT(before, 10U);
}

uint64_t accesses;

// How many accesses to shared memory all parties together make in one generation.
uint64_t accesses_of_a_generation(Barrier barrier, Member& member) {
  const uint32_t parties = barrier.parties();
  std::vector<Barrier::Arrival> waiting;
  accesses = 0;
  os::access_hook = [](const void*) { ++accesses; };
  for (uint32_t i = 1; i < parties; ++i) waiting.push_back(barrier.arrive(member, false, kForever));
  EXPECT_EQ(barrier.arrive(member, false, kForever).came, Barrier::Came::passed);
  for (const Barrier::Arrival& arrival : waiting) {
    EXPECT_EQ(barrier.wait(member, arrival, kForever), WaitResult::ok);
    EXPECT_EQ(barrier.end_wait(member, arrival, WaitResult::ok), Barrier::Left::passed);
  }
  os::access_hook = nullptr;
  return accesses;
}

TEST_F(BarrierTest, AGenerationCostsEachPartyTheSameHoweverManyThereAre) {
  uint64_t few = 0;
  Barrier small = make(100);
  for (int i = 0; i < 3; ++i) few = accesses_of_a_generation(small, *me_);
  Barrier large = make(4000);
  for (int i = 0; i < 3; ++i) EXPECT_LE(accesses_of_a_generation(large, *me_), few * 40 * 3);
}

}  // namespace
}  // namespace shoal::sync
