// SPDX-License-Identifier: Apache-2.0
//
// Locks, semaphores, conditions and event counts: each operation is stopped at each of its accesses
// to shared memory, while another member runs whole operations or dies. See testing/delay.hpp.
#include <gtest/gtest.h>

#include <string>

#include "arena/delayed_members_for_test.hpp"
#include "sync/condition.hpp"
#include "sync/event_count.hpp"
#include "sync/mutex.hpp"
#include "sync/semaphore.hpp"
#include "testing/deadline.hpp"

namespace shoal::sync {
namespace {

using arena::Handle;
using arena::Member;
using testing::delay_at_every_access;
using testing::DelayCounts;
using testing::in_ms;

constexpr int64_t kLongMs = 60'000;

class SyncDelays : public arena::DelayedMembers {
 protected:
  SyncDelays() { register_reap_hooks(); }

  void begin() {
    DelayedMembers::begin();
    state = s->me->allocate(512);
  }

  Handle state = 0;
};

TEST_F(SyncDelays, OfALockExcludeAndLeaveItFree) {
  // Accesses to it are stops as well: the operation is stopped while it holds the lock.
  os::Atomic<uint32_t> inside;
  const auto lock_and_enter = [&](Member& member) {
    ASSERT_TRUE(is_locked(Mutex(*s->arena, state).lock(member, in_ms(kLongMs))));
    ASSERT_EQ(inside.fetch_add(1), 0U);
  };
  const auto leave_and_unlock = [&](Member& member) {
    inside.fetch_sub(1);
    ASSERT_EQ(Mutex(*s->arena, state).unlock(member), Unlocked::ok);
  };
  const std::function<void()> others[] = {
      [&] {
        lock_and_enter(*second);
        leave_and_unlock(*second);
      },
      [&] {
        if (!is_locked(Mutex(*s->arena, state).try_lock(*second))) return;
        ASSERT_EQ(inside.fetch_add(1), 0U);
        leave_and_unlock(*second);
      },
      [&] {
        in_a_member_that_dies([&](Member& victim) {
          lock_and_enter(victim);
          inside.fetch_sub(1);
        });
      },
  };
  for (size_t i = 0; i < std::size(others); ++i) {
    const DelayCounts counts = delay_at_every_access(
        [&] {
          begin();
          Mutex::create(*s->arena, state);
        },
        [&] {
          lock_and_enter(*first);
          leave_and_unlock(*first);
        },
        others[i],
        [&](uint64_t k) {
          SCOPED_TRACE("others " + std::to_string(i) + ", access " + std::to_string(k));
          Mutex mutex(*s->arena, state);
          EXPECT_EQ(inside.load(), 0U);
          EXPECT_FALSE(mutex.handed_off());
          ASSERT_TRUE(is_locked(mutex.try_lock(*s->me)));
          EXPECT_EQ(mutex.unlock(*s->me), Unlocked::ok);
          EXPECT_EQ(mutex.deaths(), i == 2 ? 1U : 0U);
        });
    expect_stops("lock" + std::to_string(i), counts);
  }
}

TEST_F(SyncDelays, OfAnUnlockByANonOwnerChangeNothing) {
  Unlocked done = Unlocked::ok;
  const DelayCounts counts = delay_at_every_access(
      [&] {
        begin();
        Mutex::create(*s->arena, state);
        ASSERT_EQ(Mutex(*s->arena, state).lock(*second), Locked::ok);
      },
      [&] { done = Mutex(*s->arena, state).unlock(*first); },
      [&] { (void)Mutex(*s->arena, state).unlock(*second); },
      [&](uint64_t k) {
        SCOPED_TRACE("access " + std::to_string(k));
        Mutex mutex(*s->arena, state);
        ASSERT_TRUE(is_locked(mutex.try_lock(*s->me)));
        EXPECT_EQ(mutex.unlock(*s->me), Unlocked::ok);
        EXPECT_EQ(mutex.handed_off(), done == Unlocked::handed_off);
        if (mutex.handed_off()) return;  // then a death does not free it
        in_a_member_that_dies([&](Member& victim) { ASSERT_TRUE(is_locked(mutex.lock(victim))); });
        EXPECT_EQ(mutex.lock(*s->me, in_ms(kLongMs)), Locked::owner_died);
      });
  expect_stops("unlock", counts);
}

TEST_F(SyncDelays, OfASemaphoreKeepItsPermits) {
  const std::function<void()> others[] = {
      [&] {
        Semaphore semaphore(*s->arena, state);
        if (!semaphore.try_acquire()) return;
        ASSERT_TRUE(semaphore.release(*second));
      },
      [&] {
        Semaphore semaphore(*s->arena, state);
        ASSERT_TRUE(semaphore.release(*second));
        ASSERT_EQ(semaphore.acquire(*second, in_ms(kLongMs)), WaitResult::ok);
      },
      [&] {
        in_a_member_that_dies([&](Member& victim) {
          ASSERT_TRUE(Semaphore(*s->arena, state).release(victim));
          ASSERT_EQ(Semaphore(*s->arena, state).acquire(victim, in_ms(kLongMs)), WaitResult::ok);
        });
      },
  };
  for (const uint32_t permits : {0U, 1U}) {
    for (size_t i = 0; i < std::size(others); ++i) {
      const DelayCounts counts = delay_at_every_access(
          [&] {
            begin();
            Semaphore::create(*s->arena, state, permits);
          },
          [&] {
            Semaphore semaphore(*s->arena, state);
            ASSERT_TRUE(semaphore.release(*first));
            ASSERT_EQ(semaphore.acquire(*first, in_ms(kLongMs)), WaitResult::ok);
          },
          others[i],
          [&](uint64_t k) {
            SCOPED_TRACE("others " + std::to_string(i) + ", access " + std::to_string(k));
            EXPECT_EQ(Semaphore(*s->arena, state).permits(), permits);
          });
      expect_stops("semaphore" + std::to_string(permits) + std::to_string(i), counts);
    }
  }
}

TEST_F(SyncDelays, OfASleeperLoseNoWakeUp) {
  os::Wake wake = os::Wake::woken;
  const auto count = [&]() -> EventCount& {
    return *reinterpret_cast<EventCount*>(s->arena->address(state));
  };
  const auto work = [&]() -> os::Atomic<uint64_t>& {
    return *reinterpret_cast<os::Atomic<uint64_t>*>(s->arena->address(state + 64));
  };
  const DelayCounts counts = delay_at_every_access(
      [&] {
        begin();
        count().wake_all();
        work().store(0);
        wake = os::Wake::woken;
      },
      [&] {
        const uint32_t seen = count().prepare();
        if (work().load() == 0) wake = os::futex_wait(&count().word(), seen, kForever);
      },
      [&] {
        work().store(1);
        count().notify_one();
      },
      [&](uint64_t) { EXPECT_EQ(work().load(), 1U); });
  expect_stops("event count", counts);
  EXPECT_EQ(counts.stops, 3U);
}

TEST_F(SyncDelays, OfANotificationReachAWaiterThatStays) {
  Condition::Ticket ticket{};
  bool notified = false;
  uint32_t told = 0;
  const DelayCounts counts = delay_at_every_access(
      [&] {
        begin();
        Condition::create(*s->arena, state);
        ticket = Condition(*s->arena, state).begin_wait(*s->me);
      },
      [&] { told = Condition(*s->arena, state).notify(*first); },
      [&] {  // another waiter comes, and leaves without a notification
        Condition condition(*s->arena, state);
        const Condition::Ticket other = condition.begin_wait(*second);
        notified = condition.end_wait(*second, other);
      },
      [&](uint64_t k) {
        SCOPED_TRACE("access " + std::to_string(k));
        const bool mine = Condition(*s->arena, state).end_wait(*s->me, ticket);
        EXPECT_EQ(told, 1U);
        EXPECT_TRUE(mine) << "the other, later waiter got it: " << notified;
        EXPECT_EQ(Condition(*s->arena, state).waiters(), 0U);
      });
  expect_stops("notify", counts);
}

}  // namespace
}  // namespace shoal::sync
