// SPDX-License-Identifier: Apache-2.0
//
// Members are killed at each kill point of this layer, and after each instruction of its
// operations. The others never wait for a dead member, and nothing that it held stays held.
#include <gtest/gtest.h>
#include <signal.h>

#include <functional>
#include <map>
#include <string>

#include "sync/child_member_for_test.hpp"
#include "sync/condition.hpp"
#include "sync/event.hpp"
#include "sync/mutex.hpp"
#include "sync/recursive_mutex.hpp"
#include "sync/semaphore.hpp"
#include "testing/deadline.hpp"
#include "testing/kill_point.hpp"
#include "testing/single_step.hpp"

namespace shoal::sync {
namespace {

using arena::Arena;
using arena::Handle;
using arena::Member;
using arena::MemberKind;
using testing::Ending;
using testing::in_ms;

class DeathTest : public ::testing::Test {
 protected:
  DeathTest() {
    register_reap_hooks();
    reset();
  }
  void reset() {
    Mutex::create(*arena_, mutex_);
    Semaphore::create(*arena_, semaphore_, 0);
    Event::create(*arena_, event_);
    Condition::create(*arena_, condition_);
  }
  Mutex mutex() { return {*arena_, mutex_}; }
  Semaphore semaphore() { return {*arena_, semaphore_}; }
  Event event() { return {*arena_, event_}; }
  Condition condition() { return {*arena_, condition_}; }

  // Every object can be used again, and what the dead member held is free.
  void expect_usable() {
    arena::reap_all_dead(*arena_, *me_);
    const Locked locked = mutex().lock(*me_, in_ms(5'000));
    EXPECT_TRUE(is_locked(locked) || mutex().handed_off());
    if (is_locked(locked)) {
      EXPECT_EQ(mutex().unlock(*me_), Unlocked::ok);
    }
    EXPECT_TRUE(semaphore().release(*me_));
    EXPECT_EQ(semaphore().acquire(*me_, in_ms(5'000)), WaitResult::ok);
    event().set(*me_);
    EXPECT_EQ(event().wait(in_ms(5'000)), WaitResult::ok);
    EXPECT_EQ(condition().waiters(), 0U);
    if (!mutex().handed_off()) {
      EXPECT_EQ(Holds::of(*me_).used_for_test(), 0);
    }
  }

  std::shared_ptr<Arena> arena_ = Arena::create({uint64_t{1} << 32, 0});
  std::unique_ptr<Member> me_ = Member::join(arena_, MemberKind::root);
  const Handle mutex_ = me_->allocate(64);
  const Handle semaphore_ = me_->allocate(64);
  const Handle event_ = me_->allocate(64);
  const Handle condition_ = me_->allocate(512);
};

// Operations that pass the kill points of their object.
void lock_twice(DeathTest&, Member& member, Mutex mutex) {
  for (int i = 0; i < 2; ++i) {
    if (is_locked(mutex.lock(member))) mutex.unlock(member);
  }
}

TEST_F(DeathTest, AtEachKillPointOfALock) {
  for (const char* point : {"mutex.lock.enter", "mutex.lock.word", "mutex.unlock.word",
                            "mutex.unlock.woken", "recursive_mutex.depth"}) {
    for (unsigned nth = 1; nth <= 2; ++nth) {
      SCOPED_TRACE(std::string(point) + ":" + std::to_string(nth));
      ChildMember victim(arena_, [&](Member& member) {
        testing::arm_kill_point(point, nth);
        lock_twice(*this, member, mutex());
        RecursiveMutex recursive(*arena_, mutex_);
        static_cast<void>(recursive.lock(member));
        recursive.unlock(member);
      });
      ChildMember partner(arena_, [&](Member& member) {
        for (int i = 0; i < 200; ++i) {
          if (!is_locked(mutex().lock(member))) _exit(3);
          mutex().unlock(member);
        }
      });
      EXPECT_EQ(victim.wait(), Ending::killed);
      EXPECT_EQ(partner.wait(20'000), Ending::finished);
      expect_usable();
    }
  }
}

TEST_F(DeathTest, WhileWaitingForALock) {
  ASSERT_EQ(mutex().lock(*me_), Locked::ok);
  ChildMember victim(arena_, [&](Member& member) {
    testing::arm_kill_point("mutex.wait.word", 1);
    static_cast<void>(mutex().lock(member));
  });
  EXPECT_EQ(victim.wait(), Ending::killed);
  EXPECT_EQ(mutex().unlock(*me_), Unlocked::ok);
  expect_usable();
}

TEST_F(DeathTest, WhileHandingALockOff) {
  for (const char* point : {"mutex.handoff.word", "mutex.unlock.woken"}) {
    reset();
    ASSERT_EQ(mutex().lock(*me_), Locked::ok);
    ChildMember waiter(arena_, [&](Member& member) {
      if (!is_locked(mutex().lock(member))) _exit(3);
      mutex().unlock(member);
    });
    usleep(20'000);
    ChildMember victim(arena_, [&](Member& member) {
      testing::arm_kill_point(point, 1);
      mutex().unlock(member);
    });
    EXPECT_EQ(victim.wait(), Ending::killed);
    arena::reap_all_dead(*arena_, *me_);
    if (mutex().owner() == me_->incarnation()) {
      EXPECT_NE(mutex().unlock(*me_), Unlocked::not_locked);
    }
    EXPECT_EQ(waiter.wait(20'000), Ending::finished) << point;
    expect_usable();
  }
}

TEST_F(DeathTest, WhileReapingALock) {
  ChildMember first(arena_, [&](Member& member) {
    static_cast<void>(mutex().lock(member));
    ::kill(getpid(), SIGKILL);
  });
  EXPECT_EQ(first.wait(), Ending::killed);
  ChildMember second(arena_, [&](Member& member) {
    testing::arm_kill_point("mutex.reap.word", 1);
    arena::reap_all_dead(*arena_, member);
  });
  EXPECT_EQ(second.wait(), Ending::killed);
  EXPECT_EQ(mutex().lock(*me_, in_ms(10'000)), Locked::owner_died);
  EXPECT_EQ(mutex().unlock(*me_), Unlocked::ok);
  expect_usable();
}

TEST_F(DeathTest, AtEachKillPointOfASemaphoreAndAnEvent) {
  const std::map<std::string, std::function<void(Member&)>> operations = {
      {"semaphore.acquire.word", [&](Member& m) { static_cast<void>(semaphore().acquire(m)); }},
      {"semaphore.wait.word",
       [&](Member& m) {
         static_cast<void>(semaphore().acquire(m));
         static_cast<void>(semaphore().acquire(m, in_ms(1'000)));
       }},
      {"semaphore.release.word", [&](Member& m) { static_cast<void>(semaphore().release(m)); }},
      {"semaphore.release.woken", [&](Member& m) { static_cast<void>(semaphore().release(m)); }},
      {"event.set.word", [&](Member& m) { event().set(m); }},
      {"event.clear.word", [&](Member&) { event().clear(); }},
      {"event.wait.word", [&](Member&) { static_cast<void>(event().wait(in_ms(1'000))); }},
  };
  for (const auto& [point, operation] : operations) {
    SCOPED_TRACE(point);
    reset();
    const bool acquires =
        point.find("acquire") != std::string::npos || point == "semaphore.wait.word";
    if (acquires) {
      ASSERT_TRUE(semaphore().release(*me_));
    }
    ChildMember waiter(arena_, [&](Member& member) {
      if (!acquires && point.starts_with("semaphore")) {
        if (semaphore().acquire(member) != WaitResult::ok) _exit(3);
      } else if (point == "event.set.word") {
        if (event().wait() != WaitResult::ok) _exit(4);
      }
    });
    usleep(20'000);
    ChildMember victim(arena_, [&](Member& member) {
      testing::arm_kill_point(point.c_str(), 1);
      operation(member);
    });
    EXPECT_EQ(victim.wait(), Ending::killed);
    arena::reap_all_dead(*arena_, *me_);
    EXPECT_EQ(waiter.wait(20'000), Ending::finished);
    if (semaphore().permits() != 0) {
      EXPECT_TRUE(semaphore().try_acquire());
    }
    expect_usable();
  }
}

TEST_F(DeathTest, AtEachKillPointOfACondition) {
  for (const char* point : {"condition.wait.slot", "condition.end.slot", "condition.notify.slot"}) {
    SCOPED_TRACE(point);
    reset();
    const bool notifies = std::string(point) == "condition.notify.slot";
    const auto wait = [&](Member& member) {
      const auto ticket = condition().begin_wait(member);
      if (condition().wait(ticket, kForever) != WaitResult::ok) _exit(3);
      condition().end_wait(member, ticket);
    };
    ChildMember victim(arena_, [&](Member& member) {
      testing::arm_kill_point(point, 1);
      if (notifies) {
        while (condition().notify(member) == 0) {
        }
      }
      wait(member);
    });
    if (!notifies) {
      while (std::string(point) == "condition.end.slot" && condition().notify(*me_) == 0) {
      }
      EXPECT_EQ(victim.wait(), Ending::killed);
    }
    ChildMember waiter(arena_, wait);
    if (notifies) {
      EXPECT_EQ(victim.wait(), Ending::killed);
      arena::reap_all_dead(*arena_, *me_);
    } else {
      arena::reap_all_dead(*arena_, *me_);
      while (condition().notify(*me_) == 0) {
      }
    }
    EXPECT_EQ(waiter.wait(20'000), Ending::finished);
    expect_usable();
  }
}

TEST_F(DeathTest, WhileAddingATableOrReapingAWaiter) {
  for (const char* point : {"condition.table.enter", "condition.table.more"}) {
    ChildMember victim(arena_, [&](Member& member) {
      testing::arm_kill_point(point, 1);
      for (int i = 0; i < 70; ++i) static_cast<void>(condition().begin_wait(member));
    });
    EXPECT_EQ(victim.wait(), Ending::killed) << point;
    expect_usable();
  }
  auto dead = Member::join(arena_, MemberKind::process);
  static_cast<void>(condition().begin_wait(*dead));
  EXPECT_EQ(condition().notify(*me_), 1U);
  const auto mine = condition().begin_wait(*me_);
  dead->abandon_for_test();
  ChildMember reaper(arena_, [&](Member& member) {
    testing::arm_kill_point("condition.reap.slot", 1);
    arena::reap_all_dead(*arena_, member);
  });
  EXPECT_EQ(reaper.wait(), Ending::killed);
  arena::reap_all_dead(*arena_, *me_);
  EXPECT_EQ(condition().wait(mine, in_ms(10'000)), WaitResult::ok);
  EXPECT_TRUE(condition().end_wait(*me_, mine));
  expect_usable();
}

// The list names the kill points that the tests above cover.
TEST_F(DeathTest, NoKillPointIsForgotten) {
  const std::string known =
      " mutex.lock.enter mutex.lock.word mutex.unlock.word mutex.unlock.woken mutex.wait.word"
      " mutex.handoff.word mutex.reap.word recursive_mutex.depth"
      " semaphore.acquire.word semaphore.wait.word semaphore.release.word semaphore.release.woken"
      " event.set.word event.clear.word event.wait.word condition.wait.slot condition.end.slot"
      " condition.notify.slot condition.table.enter condition.table.more condition.reap.slot ";
  for (const std::string& name : testing::kill_point_names()) {
    for (const char* prefix :
         {"mutex.", "recursive_mutex.", "semaphore.", "event.", "condition."}) {
      if (!name.starts_with(prefix)) continue;
      EXPECT_NE(known.find(" " + name + " "), std::string::npos) << name << " is not tested";
    }
  }
}

// Kills the operation after each of its instructions in turn, without other members that use the
// objects; calls survive() after each death.
void step_through(DeathTest&, const std::shared_ptr<Arena>& arena,
                  const std::function<void(Member&)>& operation,
                  const std::function<void()>& survive) {
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "instructions are the sanitizer's";
#endif
  std::unique_ptr<Member> member;
  testing::StepResult last;
  const uint64_t deaths = testing::kill_at_every_instruction(
      [&] {
        member = Member::join(arena, MemberKind::process);
        Holds::of(*member);
      },
      [&] { operation(*member); }, [&](uint64_t) { survive(); }, &last);
  if (last.outcome == testing::StepOutcome::unavailable) GTEST_SKIP() << "no ptrace here";
  EXPECT_EQ(last.outcome, testing::StepOutcome::completed) << last.status;
  EXPECT_GT(deaths, 20U);
}

TEST_F(DeathTest, AtEveryInstructionOfLockAndUnlock) {
  step_through(
      *this, arena_,
      [&](Member& member) {
        if (is_locked(mutex().lock(member))) mutex().unlock(member);
      },
      [&] { expect_usable(); });
}

TEST_F(DeathTest, AtEveryInstructionOfSemaphoreAndEvent) {
  step_through(
      *this, arena_,
      [&](Member& member) {
        static_cast<void>(semaphore().release(member));
        static_cast<void>(semaphore().try_acquire());
        event().clear();
        event().set(member);
      },
      [&] {
        while (semaphore().try_acquire()) {
        }
        expect_usable();
      });
}

TEST_F(DeathTest, AtEveryInstructionOfNotify) {
  step_through(
      *this, arena_,
      [&](Member& member) {
        const auto ticket = condition().begin_wait(member);
        condition().notify(member);
        condition().end_wait(member, ticket);
      },
      [&] { expect_usable(); });
}

}  // namespace
}  // namespace shoal::sync
