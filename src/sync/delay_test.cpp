// SPDX-License-Identifier: Apache-2.0
//
// Members are stopped between two instructions for any time while other members continue, or are
// killed and not reaped. The other members still take what is free, get the notifications that are
// meant for them, and keep their deadlines.
#include <gtest/gtest.h>
#include <signal.h>

#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "sync/child_member_for_test.hpp"
#include "sync/condition.hpp"
#include "sync/event.hpp"
#include "sync/holds.hpp"
#include "sync/mutex.hpp"
#include "sync/recursive_mutex.hpp"
#include "sync/semaphore.hpp"
#include "sync/wait.hpp"
#include "testing/deadline.hpp"
#include "testing/stop_at.hpp"

namespace shoal::sync {
namespace {

using arena::Arena;
using arena::Handle;
using arena::Member;
using arena::MemberKind;
using testing::Ending;
using testing::in_ms;

constexpr int64_t kHungMs = 10'000;  // an operation that takes longer counts as hung

class DelayTest : public ::testing::Test {
 protected:
  DelayTest() {
    register_reap_hooks();
    Mutex::create(*arena_, mutex_);
    Semaphore::create(*arena_, semaphore_, 0);
    Event::create(*arena_, event_);
    Condition::create(*arena_, condition_);
  }
  Mutex mutex() { return {*arena_, mutex_}; }
  Semaphore semaphore() { return {*arena_, semaphore_}; }
  Event event() { return {*arena_, event_}; }
  Condition condition() { return {*arena_, condition_}; }

  // Runs `body` in a member that is then killed and not reaped.
  template <class Body>
  void die_after(Body&& body) {
    ChildMember child(arena_, [&](Member& member) {
      body(member);
      ::kill(getpid(), SIGKILL);
    });
    ASSERT_EQ(child.wait(), Ending::killed);
  }

  // Waits until the process sleeps in the kernel on this futex word, in which it has set `bit`.
  static void wait_until_asleep(pid_t pid, const os::Atomic<uint32_t>& word, uint32_t bit) {
    char state = '?';
    while (state != 'S') {
      std::this_thread::yield();
      if ((word.load() & bit) == 0) continue;
      std::FILE* const file = std::fopen(("/proc/" + std::to_string(pid) + "/stat").c_str(), "r");
      char text[512] = {};
      if (file != nullptr) static_cast<void>(std::fread(text, 1, sizeof text - 1, file));
      if (file != nullptr) std::fclose(file);
      const char* const at = std::strrchr(text, ')');
      if (at != nullptr) state = at[2];
    }
  }

  std::shared_ptr<Arena> arena_ = Arena::create({uint64_t{1} << 32, 0});
  std::unique_ptr<Member> me_ = Member::join(arena_, MemberKind::root);
  const Handle mutex_ = me_->allocate(64);
  const Handle semaphore_ = me_->allocate(64);
  const Handle event_ = me_->allocate(64);
  const Handle condition_ = me_->allocate(512);
};

// ---- the owner of a lock dies and is not reaped

TEST_F(DelayTest, TryLockTakesTheLockOfADeadOwnerThatNobodyReaps) {
  die_after([&](Member& member) { ASSERT_EQ(mutex().lock(member), Locked::ok); });
  EXPECT_EQ(mutex().try_lock(*me_), Locked::owner_died);
  EXPECT_EQ(mutex().deaths(), 1U);
  EXPECT_EQ(mutex().unlock(*me_), Unlocked::ok);
  EXPECT_EQ(mutex().try_lock(*me_), Locked::ok);
  EXPECT_EQ(mutex().unlock(*me_), Unlocked::ok);
}

TEST_F(DelayTest, APollOfARecursiveLockTakesItFromADeadOwner) {
  RecursiveMutex m(*arena_, mutex_);
  die_after([&](Member& member) { ASSERT_EQ(m.lock(member), Locked::ok); });
  EXPECT_EQ(m.lock(*me_, 0), Locked::owner_died);
  EXPECT_EQ(m.depth(), 1U);
  EXPECT_EQ(m.unlock(*me_), Unlocked::ok);
}

TEST_F(DelayTest, ALockWithADeadlineInThePastTakesItFromADeadOwner) {
  die_after([&](Member& member) { ASSERT_EQ(mutex().lock(member), Locked::ok); });
  EXPECT_EQ(mutex().lock(*me_, 1), Locked::owner_died);
  EXPECT_EQ(mutex().unlock(*me_), Unlocked::ok);
}

TEST_F(DelayTest, APollSeesThatAnOwnerDiesBetweenTwoPolls) {
  ChildMember owner(arena_, [&](Member& member) {
    ASSERT_EQ(mutex().lock(member), Locked::ok);
    for (;;) pause();
  });
  while (mutex().owner() == 0) std::this_thread::yield();
  EXPECT_EQ(mutex().try_lock(*me_), Locked::busy);
  owner.kill();
  Locked locked = Locked::busy;
  const int64_t end_ns = in_ms(kHungMs);
  while (locked == Locked::busy && os::monotonic_ns() < end_ns) locked = mutex().try_lock(*me_);
  EXPECT_EQ(locked, Locked::owner_died);
  EXPECT_EQ(mutex().unlock(*me_), Unlocked::ok);
}

TEST_F(DelayTest, ADeadOwnerWithoutAHeldWordIsFoundByAPollEvenAfterItWasReaped) {
  die_after([&](Member& member) {
    for (int i = 0; i < Holds::kWords; ++i) {
      const Handle block = member.allocate(sizeof(MutexState));
      Mutex::create(*arena_, block);
      ASSERT_EQ(Mutex(*arena_, block).lock(member), Locked::ok);
    }
    ASSERT_EQ(mutex().lock(member), Locked::ok);
  });
  arena::reap_all_dead(*arena_, *me_);
  EXPECT_EQ(mutex().try_lock(*me_), Locked::owner_died);
  EXPECT_EQ(mutex().unlock(*me_), Unlocked::ok);
}

TEST_F(DelayTest, PollsOfALiveOwnersLockSeldomReadItsState) {
  const auto other = Member::join(arena_, MemberKind::process);
  ASSERT_EQ(mutex().lock(*other), Locked::ok);
  const int64_t begin_ns = os::monotonic_ns();
  for (int i = 0; i < 100'000; ++i) ASSERT_EQ(mutex().try_lock(*me_), Locked::busy);
  const int64_t took_ms = (os::monotonic_ns() - begin_ns) / 1'000'000;
  EXPECT_GE(Holds::of(*me_).looks_for_test(), 1U);
  EXPECT_LE(Holds::of(*me_).looks_for_test(), took_ms / Holds::kLookMs + 2);
}

TEST_F(DelayTest, AStoppedOwnerKeepsItsLock) {
  ChildMember owner(arena_, [&](Member& member) {
    ASSERT_EQ(mutex().lock(member), Locked::ok);
    ::raise(SIGSTOP);
    if (mutex().unlock(member) != Unlocked::ok) _exit(3);
  });
  while (mutex().owner() == 0) std::this_thread::yield();
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(mutex().try_lock(*me_), Locked::busy);
  EXPECT_EQ(mutex().lock(*me_, in_ms(50)), Locked::timed_out);
  while (mutex().owner() != 0) owner.resume();
  EXPECT_EQ(owner.wait(), Ending::finished);
}

// ---- a member unlocks a lock that another member has locked

TEST_F(DelayTest, AReleaseThatComesTooLateLeavesTheLockAsItIs) {
  const auto other = Member::join(arena_, MemberKind::process);
  uint64_t before = 1;
  for (bool stopped = true; stopped; ++before) {
    SCOPED_TRACE(before);
    Mutex::create(*arena_, mutex_);
    ASSERT_EQ(mutex().lock(*other), Locked::ok);
    Unlocked late = Unlocked::ok;
    stopped = testing::stopped_at(
        before, [&] { late = mutex().unlock(*me_); }, [&] { mutex().unlock(*other); });
    EXPECT_EQ(mutex().owner(), 0U);
    EXPECT_EQ(mutex().handed_off(), late == Unlocked::handed_off);
    if (mutex().handed_off()) continue;
    ASSERT_EQ(mutex().lock(*other), Locked::ok);
    ASSERT_EQ(mutex().unlock(*other), Unlocked::ok);
  }
  EXPECT_GT(before, 3U);
}

// ---- a waker stops, or is killed, between its store and the wake-up

TEST_F(DelayTest, NoSleeperSleepsLongerThanTheLastTick) {
  os::Atomic<uint32_t> word;
  Ticker ticker(kForever);
  int64_t tick_ns = kFirstTickNs;
  for (int i = 0; i < 7; ++i, tick_ns = tick_after(tick_ns)) {
    EXPECT_LE(tick_ns, kLastTickNs);
    const int64_t end_ns = os::monotonic_ns() + tick_ns;
    bool ticked = false;
    EXPECT_EQ(ticker.sleep(&word, 0, &ticked), os::Wake::woken);  // although no thread wakes it
    EXPECT_TRUE(ticked);
    EXPECT_GE(os::monotonic_ns(), end_ns);
  }
  EXPECT_EQ(tick_ns, kLastTickNs);
}

TEST_F(DelayTest, ASemaphoreHasAPermitButTheReleaserNeverWakesTheSleeper) {
  ChildMember sleeper(arena_, [&](Member& member) {
    if (semaphore().acquire(member) != WaitResult::ok) _exit(3);
  });
  auto& word = arena_->at<SemaphoreState>(semaphore_)->word;
  wait_until_asleep(sleeper.pid(), word, 1u << 31);
  word.fetch_add(1);
  EXPECT_EQ(sleeper.wait(kHungMs), Ending::finished);
  EXPECT_EQ(semaphore().permits(), 0U);
}

TEST_F(DelayTest, AnEventIsSetButNobodyWakesTheSleeper) {
  ChildMember sleeper(arena_, [&](Member&) {
    if (event().wait() != WaitResult::ok) _exit(3);
  });
  auto& word = arena_->at<EventState>(event_)->word;
  wait_until_asleep(sleeper.pid(), word, 2);
  word.store(5);  // as set() does: epoch 1, SET
  EXPECT_EQ(sleeper.wait(kHungMs), Ending::finished);
}

TEST_F(DelayTest, AWaiterIsNotifiedButNobodyWakesIt) {
  ChildMember sleeper(arena_, [&](Member& member) {
    const auto ticket = condition().begin_wait(member);
    if (condition().wait(ticket, kForever) != WaitResult::ok) _exit(3);
    if (!condition().end_wait(member, ticket)) _exit(4);
  });
  auto& slot = arena_->at<ConditionState>(condition_)->slots[0];
  auto& low_half = reinterpret_cast<os::Atomic<uint32_t>&>(slot);
  wait_until_asleep(sleeper.pid(), low_half, 1);
  slot.store((slot.load() & ~uint64_t{3}) | 2);  // notified
  EXPECT_EQ(sleeper.wait(kHungMs), Ending::finished);
}

// ---- the notified waiter is killed and not reaped, and all others sleep

TEST_F(DelayTest, ASleeperGetsTheNotificationOfADeadWaiterThatNobodyReaps) {
  die_after([&](Member& member) { static_cast<void>(condition().begin_wait(member)); });
  const auto mine = condition().begin_wait(*me_);
  ASSERT_EQ(condition().notify(*me_), 1U);  // the dead waiter is older
  EXPECT_EQ(condition().wait(mine, in_ms(kHungMs)), WaitResult::ok);
  EXPECT_TRUE(condition().end_wait(*me_, mine));
  EXPECT_EQ(condition().waiters(), 0U);
}

TEST_F(DelayTest, AWaiterWithoutAHeldWordIsRepairedByTheOtherWaiters) {
  die_after([&](Member& member) {
    const Handle crowded = member.allocate(sizeof(ConditionState));
    Condition::create(*arena_, crowded);
    Condition others(*arena_, crowded);
    for (int i = 0; i < Holds::kWords - Holds::kReserve; ++i) {
      ASSERT_NE(others.begin_wait(member).held, Holds::kNone);
    }
    ASSERT_EQ(condition().begin_wait(member).held, Holds::kNone);  // the 57th
  });
  const auto mine = condition().begin_wait(*me_);
  ASSERT_EQ(condition().notify(*me_), 1U);
  arena::reap_all_dead(*arena_, *me_);  // does not know that the dead member waited here
  EXPECT_EQ(condition().wait(mine, in_ms(kHungMs)), WaitResult::ok);
  EXPECT_TRUE(condition().end_wait(*me_, mine));
}

TEST_F(DelayTest, APollOfAConditionPassesTheNotificationOfADeadWaiterOn) {
  die_after([&](Member& member) { static_cast<void>(condition().begin_wait(member)); });
  const auto mine = condition().begin_wait(*me_);
  ASSERT_EQ(condition().notify(*me_), 1U);
  EXPECT_EQ(condition().wait(mine, 0), WaitResult::ok);
  EXPECT_TRUE(condition().end_wait(*me_, mine));
}

TEST_F(DelayTest, AStoppedWaiterKeepsItsNotification) {
  ChildMember stopped(arena_, [&](Member& member) {
    const auto ticket = condition().begin_wait(member);
    ::raise(SIGSTOP);
    if (!condition().end_wait(member, ticket)) _exit(3);
  });
  while (condition().waiters() == 0) std::this_thread::yield();
  const auto mine = condition().begin_wait(*me_);
  ASSERT_EQ(condition().notify(*me_), 1U);
  EXPECT_EQ(condition().wait(mine, in_ms(300)), WaitResult::timed_out);
  EXPECT_FALSE(condition().end_wait(*me_, mine));
  while (arena_->at<ConditionState>(condition_)->slots[0].load() != 0) stopped.resume();
  EXPECT_EQ(stopped.wait(), Ending::finished);
}

// ---- waiters leave and new waiters come while a notifier is stopped

TEST_F(DelayTest, AWaiterThatComesDuringANotifyIsNotNotifiedInPlaceOfOneThatLeft) {
  uint64_t before = 1;
  for (bool stopped = true; stopped; ++before) {
    SCOPED_TRACE(before);
    Condition::create(*arena_, condition_);
    Condition notifier = condition();
    const auto first = condition().begin_wait(*me_);
    Condition::Ticket late{};
    bool first_notified = false;
    uint32_t notified = 0;
    stopped = testing::stopped_at(
        before, [&] { notified = notifier.notify(*me_); },
        [&] {
          first_notified = condition().end_wait(*me_, first);
          late = condition().begin_wait(*me_);
        });
    if (!stopped) {
      condition().end_wait(*me_, first);
      break;
    }
    const bool late_notified = condition().end_wait(*me_, late);
    // Before the first access, the notify has not begun: the late waiter waits before it.
    if (before > 1) {
      EXPECT_FALSE(late_notified);
    }
    EXPECT_EQ(notified, (first_notified ? 1U : 0U) + (late_notified ? 1U : 0U));
  }
  EXPECT_GT(before, 10U);
}

TEST_F(DelayTest, ANotifyOfAllReachesThoseWhoWaitedBeforeItHoweverManyAndNoLaterOne) {
  std::vector<Condition::Ticket> before;
  for (int i = 0; i < 150; ++i) before.push_back(condition().begin_wait(*me_));
  std::vector<Condition::Ticket> later;
  uint32_t notified = 0;
  EXPECT_TRUE(testing::stopped_at(
      200, [&] { notified = condition().notify_all(*me_); },
      [&] {
        for (int i = 0; i < 100; ++i) later.push_back(condition().begin_wait(*me_));
      }));
  EXPECT_EQ(notified, before.size());
  for (const auto& ticket : before) EXPECT_TRUE(condition().end_wait(*me_, ticket));
  for (const auto& ticket : later) EXPECT_FALSE(condition().end_wait(*me_, ticket));
}

TEST_F(DelayTest, TheNumbersOfTheTicketsMayWrapAround) {
  arena_->at<ConditionState>(condition_)->tickets.store((1u << 30) - 2);
  std::vector<Condition::Ticket> tickets;
  for (int i = 0; i < 5; ++i) tickets.push_back(condition().begin_wait(*me_));
  for (size_t i = 0; i < tickets.size(); ++i) {
    EXPECT_EQ(condition().notify(*me_), 1U);
    EXPECT_TRUE(condition().end_wait(*me_, tickets[i])) << i;
  }
}

// ---- stopped threads have taken all held words

TEST_F(DelayTest, AWakerDoesNotWaitForAHeldWord) {
  ChildMember child(arena_, [&](Member& member) {
    Holds& holds = Holds::of(member);
    while (holds.publish(event_, HeldKind::event, true) != Holds::kNone) {
    }
    event().set(member);
    if (semaphore().release(member)) _exit(condition().notify(member) == 0 ? 0 : 3);
  });
  EXPECT_EQ(child.wait(kHungMs), Ending::finished);
}

}  // namespace
}  // namespace shoal::sync
