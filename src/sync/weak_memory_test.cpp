// SPDX-License-Identifier: Apache-2.0
//
// Locks and everything else that members wait with, in a memory that keeps only what the C++ memory
// model promises (testing/weak_memory.hpp). What they protect or announce is plain data. No wait
// may end by its time limit: then a wake-up was lost, and a tick made up for it.
#include <gtest/gtest.h>

#include "arena/delayed_members_for_test.hpp"
#include "sync/atomic_value.hpp"
#include "sync/barrier.hpp"
#include "sync/condition.hpp"
#include "sync/event.hpp"
#include "sync/event_count.hpp"
#include "sync/mutex.hpp"
#include "sync/recursive_mutex.hpp"
#include "sync/semaphore.hpp"
#include "testing/deadline.hpp"

namespace shoal::sync {
namespace {

using arena::Handle;
using arena::Member;
using testing::in_ms;
using testing::PlainWord;
using testing::SimulatedRange;
using testing::WeakCounts;
using Word = os::Atomic<uint64_t>;

constexpr int64_t kLongMs = 60'000;
constexpr unsigned kSeeds = 400;

class SyncInWeakMemory : public arena::DelayedMembers {
 protected:
  SyncInWeakMemory() { register_reap_hooks(); }

  void begin() {
    DelayedMembers::begin();
    state = s->me->allocate(8192);
    for (const Member* const member : {s->me.get(), first.get(), second.get()}) {
      static_cast<void>(Holds::of(*const_cast<Member*>(member)));
    }
    for (uint64_t i = 0; i < 4; ++i) data(i).set(0);
  }
  // Plain data that the members share.
  PlainWord& data(uint64_t i) { return *s->arena->at<PlainWord>(state + 4096 + 64 * i); }
  void write(uint64_t value, uint64_t i = 0) { data(i).set(value); }
  uint64_t read(uint64_t i = 0) { return data(i).get(); }

  void try_it(const std::string& what, const std::function<void()>& prepare,
              std::vector<std::function<void()>> operations, const std::function<void()>& check) {
    const WeakCounts counts =
        try_in_weak_memory(what, prepare, std::move(operations), check, kSeeds);
    EXPECT_EQ(counts.timeouts, 0U) << what << ": a wake-up was lost";
  }

  Handle state = 0;
};

TEST_F(SyncInWeakMemory, AMutexExcludesAndPublishes) {
  const auto add = [&](Member& member) {
    Mutex mutex(*s->arena, state);
    for (int turn = 0; turn < 2; ++turn) {
      ASSERT_TRUE(is_locked(mutex.lock(member, in_ms(kLongMs))));
      write(read() + 1);
      ASSERT_EQ(mutex.unlock(member), Unlocked::ok);
    }
  };
  try_it(
      "mutex",
      [&] {
        begin();
        Mutex::create(*s->arena, state);
      },
      {[&] { add(*s->me); }, [&] { add(*first); }, [&] { add(*second); }},
      [&] {
        EXPECT_EQ(read(), 6U);
        EXPECT_EQ(Mutex(*s->arena, state).owner(), 0U);
      });
}

TEST_F(SyncInWeakMemory, ARecursiveMutexExcludesThreadsOfOneMember) {
  const auto add = [&](Member& member) {
    RecursiveMutex mutex(*s->arena, state);
    for (int turn = 0; turn < 2; ++turn) {
      ASSERT_TRUE(is_locked(mutex.lock(member, in_ms(kLongMs))));
      ASSERT_TRUE(is_locked(mutex.lock(member, in_ms(kLongMs))));
      write(read() + 1);
      ASSERT_EQ(mutex.unlock(member), Unlocked::ok);
      write(read() + 1);
      ASSERT_EQ(mutex.unlock(member), Unlocked::ok);
    }
  };
  const WeakCounts counts = try_in_weak_memory(
      "recursive",
      [&] {
        begin();
        RecursiveMutex::create(*s->arena, state);
      },
      {[&] { add(*first); }, [&] { add(*first); }, [&] { add(*second); }},
      [&] {
        EXPECT_EQ(read(), 12U);
        EXPECT_EQ(Holds::of(*first).used_for_test(), 0);
      },
      kSeeds,
      // The words that the threads of one member share.
      [&] { return std::vector<SimulatedRange>{{&Holds::of(*first), sizeof(Holds)}}; });
  EXPECT_EQ(counts.timeouts, 0U);
}

TEST_F(SyncInWeakMemory, ASemaphorePublishes) {
  const Handle back = 64;  // of a second semaphore, behind the first
  try_it(
      "semaphore",
      [&] {
        begin();
        Semaphore::create(*s->arena, state, 0);
        Semaphore::create(*s->arena, state + back, 0);
      },
      {[&] {
         for (uint64_t i = 1; i <= 3; ++i) {
           write(i);
           ASSERT_TRUE(Semaphore(*s->arena, state).release(*first));
           ASSERT_EQ(Semaphore(*s->arena, state + back).acquire(*first, in_ms(kLongMs)),
                     WaitResult::ok);
           ASSERT_EQ(read(), 10 * i);
         }
       },
       [&] {
         for (uint64_t i = 1; i <= 3; ++i) {
           ASSERT_EQ(Semaphore(*s->arena, state).acquire(*second, in_ms(kLongMs)), WaitResult::ok);
           ASSERT_EQ(read(), i);
           write(10 * i);
           ASSERT_TRUE(Semaphore(*s->arena, state + back).release(*second));
         }
       }},
      [&] { EXPECT_EQ(read(), 30U); });
}

TEST_F(SyncInWeakMemory, AnEventPublishes) {
  const auto wait = [&] {
    ASSERT_EQ(Event(*s->arena, state).wait(in_ms(kLongMs)), WaitResult::ok);
    ASSERT_EQ(read(), 7U);
  };
  try_it(
      "event",
      [&] {
        begin();
        Event::create(*s->arena, state);
      },
      {[&] {
         write(7);
         Event(*s->arena, state).set(*first);
       },
       wait, wait},
      [&] { EXPECT_TRUE(Event(*s->arena, state).is_set()); });
}

TEST_F(SyncInWeakMemory, AnEventCountLosesNoWakeUp) {
  const auto count = [&]() -> EventCount& { return *s->arena->at<EventCount>(state); };
  const auto condition = [&]() -> Word& { return *s->arena->at<Word>(state + 2048); };
  const auto sleep = [&] {
    while (true) {
      const uint32_t seen = count().prepare();
      if (condition().load() != 0) break;
      (void)os::futex_wait(&count().word(), seen, kForever);
    }
    ASSERT_EQ(read(), 7U);
  };
  const auto listen = [&] {
    while (true) {
      uint32_t seen = count().listen();
      if (condition().load() != 0) break;
      if (count().announce(&seen)) (void)os::futex_wait(&count().word(), seen, kForever);
    }
    ASSERT_EQ(read(), 7U);
  };
  const auto tell = [&](void (EventCount::*notify)()) {
    return [&, notify] {
      write(7);
      condition().store(1);
      (count().*notify)();
    };
  };
  const auto prepare = [&] {
    begin();
    new (s->arena->address(state)) EventCount;
    condition().store(0);
  };
  const auto nothing = [] {};
  try_it("one", prepare, {sleep, tell(&EventCount::notify_one)}, nothing);
  try_it("all", prepare, {sleep, sleep, tell(&EventCount::notify_all)}, nothing);
  try_it("advance", prepare, {listen, listen, tell(&EventCount::advance_all)}, nothing);
}

TEST_F(SyncInWeakMemory, AConditionLosesNoNotification) {
  const Handle mutex = 2048;
  const auto take = [&](Member& member) {
    Condition condition(*s->arena, state);
    Mutex lock(*s->arena, state + mutex);
    ASSERT_TRUE(is_locked(lock.lock(member, in_ms(kLongMs))));
    while (read() == 0) {
      const auto ticket = condition.begin_wait(member);
      ASSERT_EQ(lock.unlock(member), Unlocked::ok);
      ASSERT_EQ(condition.wait(ticket, in_ms(kLongMs)), WaitResult::ok);
      ASSERT_TRUE(condition.end_wait(member, ticket));
      ASSERT_TRUE(is_locked(lock.lock(member, in_ms(kLongMs))));
    }
    write(read() - 1);
    ASSERT_EQ(lock.unlock(member), Unlocked::ok);
  };
  try_it(
      "condition",
      [&] {
        begin();
        static_assert(sizeof(ConditionState) <= 2048);
        Condition::create(*s->arena, state);
        Mutex::create(*s->arena, state + mutex);
      },
      {[&] { take(*first); }, [&] { take(*second); },
       [&] {
         Mutex lock(*s->arena, state + mutex);
         for (int i = 0; i < 2; ++i) {
           ASSERT_TRUE(is_locked(lock.lock(*s->me, in_ms(kLongMs))));
           write(read() + 1);
           (void)Condition(*s->arena, state).notify(*s->me);
           ASSERT_EQ(lock.unlock(*s->me), Unlocked::ok);
         }
       }},
      [&] {
        EXPECT_EQ(read(), 0U);
        EXPECT_EQ(Condition(*s->arena, state).waiters(), 0U);
      });
}

TEST_F(SyncInWeakMemory, ABarrierPublishesWhatEachPartyDid) {
  const auto pass = [&](Member& member, uint64_t own) {
    Barrier barrier(*s->arena, state);
    for (uint64_t round = 1; round <= 2; ++round) {
      write(round, own);
      const auto arrival = barrier.arrive(member, false, in_ms(kLongMs));
      if (arrival.came == Barrier::Came::waits) {
        const WaitResult how = barrier.wait(member, arrival, in_ms(kLongMs));
        ASSERT_EQ(barrier.end_wait(member, arrival, how), Barrier::Left::passed);
      } else {
        ASSERT_EQ(arrival.came, Barrier::Came::passed);
      }
      // Another party may be in the next round already.
      for (uint64_t i = 0; i < 3; ++i) ASSERT_GE(read(i), round) << "party " << i;
    }
  };
  try_it(
      "barrier",
      [&] {
        begin();
        Barrier::create(*s->arena, state, 3);
      },
      {[&] { pass(*s->me, 0); }, [&] { pass(*first, 1); }, [&] { pass(*second, 2); }},
      [&] { EXPECT_EQ(Barrier(*s->arena, state).waiting(), 0U); });
}

TEST_F(SyncInWeakMemory, AnAtomicValuePublishesAndLosesNoWakeUp) {
  try_it(
      "atomic",
      [&] {
        begin();
        AtomicValue::create(*s->arena, state, ValueKind::uint64, 0);
      },
      {[&] {
         for (uint64_t value = 1; value <= 2; ++value) {
           write(value);
           AtomicValue(*s->arena, state).add(1);
         }
       },
       [&] {
         AtomicValue value(*s->arena, state);
         uint64_t seen = 0;
         while (seen < 2) {
           ASSERT_EQ(value.wait(seen, in_ms(kLongMs)), WaitResult::ok);
           seen = value.load();
           ASSERT_GE(read(), seen);
         }
       }},
      [] {});
}

// Not by seed: every run of two short operations in which each is stopped at most once, one load
// returns an old value, and one store comes late.
class EveryRun : public SyncInWeakMemory {
 protected:
  void try_every(const std::string& what, const std::function<void()>& create,
                 std::vector<std::function<void()>> operations,
                 const std::function<void()>& check) {
    begin();
    const testing::WeakScene scene{
        [&] {
          data(0).set(0);
          create();
          return std::vector<SimulatedRange>{{s->arena->base(), s->arena->header().reserve}};
        },
        std::move(operations),
        [&](const std::string& run) {
          SCOPED_TRACE(what + ", " + run);
          check();
          return !HasFailure();
        }};
    const WeakCounts counts = testing::weak_every(scene, {2, 1, 1, 50'000});
    RecordProperty(what + ".runs", static_cast<int>(counts.runs));
    EXPECT_TRUE(counts.complete) << what;
    EXPECT_EQ(counts.lost + counts.timeouts, 0U) << what << ": a wake-up was lost";
  }
};

TEST_F(EveryRun, OfTwoMembersThatLockExcludes) {
  const auto add = [&](Member& member) {
    Mutex mutex(*s->arena, state);
    ASSERT_TRUE(is_locked(mutex.lock(member, in_ms(kLongMs))));
    write(read() + 1);
    ASSERT_EQ(mutex.unlock(member), Unlocked::ok);
  };
  try_every(
      "mutex", [&] { Mutex::create(*s->arena, state); },
      {[&] { add(*first); }, [&] { add(*second); }},
      [&] {
        EXPECT_EQ(read(), 2U);
        EXPECT_EQ(Mutex(*s->arena, state).owner(), 0U);
      });
}

TEST_F(EveryRun, OfAReleaseAndAnAcquirePublishes) {
  try_every(
      "semaphore", [&] { Semaphore::create(*s->arena, state, 0); },
      {[&] {
         write(7);
         ASSERT_TRUE(Semaphore(*s->arena, state).release(*first));
       },
       [&] {
         ASSERT_EQ(Semaphore(*s->arena, state).acquire(*second, in_ms(kLongMs)), WaitResult::ok);
         ASSERT_EQ(read(), 7U);
       }},
      [&] { EXPECT_EQ(Semaphore(*s->arena, state).permits(), 0U); });
}

TEST_F(EveryRun, OfASleeperAndANotifierEnds) {
  const auto count = [&]() -> EventCount& { return *s->arena->at<EventCount>(state); };
  const auto condition = [&]() -> Word& { return *s->arena->at<Word>(state + 2048); };
  try_every(
      "event count",
      [&] {
        new (s->arena->address(state)) EventCount;
        condition().store(0);
      },
      {[&] {
         while (true) {
           const uint32_t seen = count().prepare();
           if (condition().load() != 0) break;
           (void)os::futex_wait(&count().word(), seen, kForever);
         }
         ASSERT_EQ(read(), 7U);
       },
       [&] {
         write(7);
         condition().store(1);
         count().notify_one();
       }},
      [] {});
}

}  // namespace
}  // namespace shoal::sync
