// SPDX-License-Identifier: Apache-2.0
//
// Delays: a process of the pool is stopped before each of its accesses to shared memory while other
// processes run whole operations. No unit may be hidden from workers that look for work, no wake-up
// may be lost, and afterwards each unit has one outcome.
#include <algorithm>
#include <iterator>
#include <thread>

#include "pool/test_pool.hpp"
#include "testing/stop_at.hpp"

namespace shoal::pool {
namespace {

using testing::accesses_to;
using testing::sleeps_for_ever;
using testing::stopped_at;

using Accesses = std::function<bool(const void*)>;

Accesses accesses_to_state(const TestPool& pool) {
  return accesses_to(&pool.client->state(), PoolState::bytes_for(pool.client->seats()));
}

Accesses accesses_to_state_and(TestPool& pool, Entry entry) {
  const Handle batch = pool.client->batch_handle(entry.slot());
  const arena::Arena& arena = *pool.session.arena;
  return [state = accesses_to_state(pool),
          block = accesses_to(arena.address(batch), arena.block_size(batch))](const void* address) {
    return state(address) || block(address);
  };
}

constexpr uint64_t kLong = 1ull << 40;  // ticks

int queued_units(const TestPool& pool, Entry entry) {
  const Batch batch = pool.client->batch(entry.slot());
  int count = 0;
  for (uint32_t i = 0; i < batch.units; ++i) {
    count += Unit::of(batch.unit_words()[i].load()).state == UnitState::queued ? 1 : 0;
  }
  return count;
}

void finish(TestPool& pool, TestWorker& worker) {
  run_all(worker.seat);
  pool.expect_everything_done();
}

// ---- Work is found ------------------------------------------------------------------------------

// Stops `late` before each of its accesses in turn. During the stop another worker takes work until
// it finds none: then no unclaimed unit may be left.
void expect_nothing_hidden(const std::function<Entry(TestPool&)>& submit,
                           const std::function<void(WorkerSeat&)>& late) {
  for (unsigned nth = 1;; ++nth) {
    TestPool pool;
    const Entry entry = submit(pool);
    const auto stopped = pool.hire();
    const auto other = pool.hire();
    const bool reached = stopped_at(
        nth, accesses_to_state_and(pool, entry), [&] { late(stopped->seat); }, {[&] {
          run_all(other->seat);
          EXPECT_EQ(queued_units(pool, entry), 0) << "units are hidden at access " << nth;
        }});
    finish(pool, *other);
    pool.expect_clean_end();
    if (!reached || ::testing::Test::HasFailure()) return;
  }
}

void run_everything(WorkerSeat& seat) { run_all(seat); }

TEST(Delay, ABatchOfOneUnitIsNotHiddenByAWorkerThatIsStopped) {
  expect_nothing_hidden([](TestPool& pool) { return pool.submit(1); }, run_everything);
}

TEST(Delay, ABatchForOneWorkerIsNotHiddenWhenThatWorkerIsStopped) {
  expect_nothing_hidden([](TestPool& pool) { return pool.submit(3); }, run_everything);
}

TEST(Delay, ASharedBatchIsNotHiddenByAWorkerThatIsStopped) {
  expect_nothing_hidden([](TestPool& pool) { return pool.submit_shared(3); }, run_everything);
}

TEST(Delay, AWorkerThatLeavesHidesNothingWhenItIsStopped) {
  expect_nothing_hidden([](TestPool& pool) { return pool.submit(3); },
                        [](WorkerSeat& seat) {
                          if (!seat.enter_next()) return;  // the other worker has run all units
                          if (const auto claim = seat.claim()) run_claim(seat, *claim);
                          EXPECT_TRUE(seat.hand_over());
                          seat.leave_batch();
                        });
}

TEST(Delay, AnAgentThatIsStoppedWhileItRecordsADeathHidesNothing) {
  for (unsigned nth = 1;; ++nth) {
    TestPool pool;
    const Entry entry = pool.submit(4);
    const auto victim = pool.hire();
    const auto other = pool.hire();
    ASSERT_TRUE(victim->seat.enter_next());
    run_claim(victim->seat, *victim->seat.claim());
    victim->abandon();
    const bool reached = stopped_at(
        nth, accesses_to_state(pool),
        [&] { pool.agent.record_exit(victim->index, {SIGKILL, 0, false}); }, {[&] {
          run_all(other->seat);
          EXPECT_EQ(queued_units(pool, entry), 0) << "units are hidden at access " << nth;
        }});
    pool.resolve();
    finish(pool, *other);
    EXPECT_EQ(pool.lost, 0U);
    pool.expect_clean_end();
    if (!reached || HasFailure()) break;
  }
}

// The dead worker's batch waits for the client; batches that wait in the ring do not.
TEST(Delay, AClientThatIsStoppedWhileItResolvesADeathHidesNoOtherBatch) {
  for (unsigned nth = 1;; ++nth) {
    TestPool pool;
    pool.submit(2);
    const Entry waiting = pool.submit(3);
    const auto victim = pool.hire();
    const auto other = pool.hire();
    ASSERT_TRUE(victim->seat.enter_next());
    ASSERT_TRUE(victim->seat.claim());
    victim->abandon();
    pool.agent.record_exit(victim->index, {SIGKILL, 0, false});
    const bool reached = stopped_at(nth, accesses_to_state(pool), [&] { pool.resolve(); }, {[&] {
                                      run_all(other->seat);
                                      EXPECT_EQ(queued_units(pool, waiting), 0)
                                          << "units are hidden at access " << nth;
                                    }});
    finish(pool, *other);
    EXPECT_EQ(pool.lost, 1U);
    pool.expect_clean_end();
    if (!reached || HasFailure()) break;
  }
}

// A worker finds the list of open batches empty. It is stopped before each of its accesses while a
// batch is opened, and before the following access while another worker looks for work.
TEST(Delay, AWorkerThatSawNoOpenBatchHidesNoneThatIsOpenedMeanwhile) {
  for (unsigned nth = 1;; ++nth) {
    TestPool pool;
    OpenBatches open(&pool.client->state());
    const auto late = pool.hire();
    const auto leaver = pool.hire();
    const auto other = pool.hire();
    ASSERT_TRUE(open.add(Entry{12345}));  // a batch that has ended: maybe_any() is true
    open.remove(Entry{12345});
    Entry entry;
    const auto look = [&] {
      run_all(other->seat);
      EXPECT_EQ(queued_units(pool, entry), 0) << "units are hidden at access " << nth;
    };
    const auto open_another = [&] {
      entry = pool.submit(3);
      ASSERT_TRUE(leaver->seat.enter_next());
      run_claim(leaver->seat, *leaver->seat.claim());
      ASSERT_TRUE(leaver->seat.hand_over());
      leaver->seat.leave_batch();
    };
    const bool reached = stopped_at(nth, accesses_to_state(pool), [&] { (void)open.oldest(); },
                                    {open_another, look});
    finish(pool, *other);
    pool.expect_clean_end();
    if (!reached || HasFailure()) break;
  }
}

// ---- What comes late does no harm ---------------------------------------------------------------

TEST(Delay, AWorkerThatIsStoppedWhileItsBatchEndsAndItsSlotIsReusedRunsNothingTwice) {
  for (const bool shared : {false, true}) {
    bool reached = true;
    for (unsigned nth = 1; reached && !HasFailure(); ++nth) {
      TestPool pool;
      const Entry entry = pool.submit(3, 1, 0, shared);
      const auto late = pool.hire();
      const auto other = pool.hire();
      const auto round = [&] {
        run_all(other->seat);
        pool.collect();
      };
      reached =
          stopped_at(nth, accesses_to_state_and(pool, entry), [&] { run_all(late->seat); }, {[&] {
                       round();
                       for (int i = 0; i < 3; ++i) pool.submit(2, 1, 0, shared);
                       round();
                       pool.submit(2, 1, 0, shared);  // the late worker finds this batch
                     }});
      finish(pool, *other);
      pool.expect_clean_end();
    }
  }
}

TEST(Delay, AThiefThatIsStoppedWhileItsVictimDiesAndIsReplacedRunsNothingTwice) {
  bool reached = true;
  for (unsigned nth = 1; reached && !HasFailure(); ++nth) {
    TestPool pool;
    const Entry entry = pool.submit(5);
    auto victim = pool.hire();
    const auto thief = pool.hire();
    std::unique_ptr<TestWorker> next;
    ASSERT_TRUE(victim->seat.enter_next());
    ASSERT_TRUE(victim->seat.claim());
    reached =
        stopped_at(nth, accesses_to_state_and(pool, entry), [&] { run_all(thief->seat); }, {[&] {
                     pool.die(*victim);
                     next = pool.hire();
                     EXPECT_EQ(next->index, victim->index);
                     run_all(next->seat);
                     pool.collect();
                     pool.submit(4);
                     ASSERT_TRUE(next->seat.enter_next());  // offers a batch, as the victim did
                   }});
    if (next != nullptr && next->seat.batch()) {
      while (const auto claim = next->seat.claim()) run_claim(next->seat, *claim);
      next->seat.leave_batch();
    }
    if (!reached) pool.die(*victim);
    finish(pool, *thief);
    EXPECT_EQ(pool.lost, 1U);
    pool.expect_clean_end();
  }
}

// ---- Hints that come late -----------------------------------------------------------------------

bool is_in_list(PoolState& state, Entry entry) {
  return std::any_of(std::begin(state.open), std::end(state.open),
                     [entry](const auto& place) { return place.load() == entry.value; });
}

// A worker finds an open batch exhausted, and is stopped before it removes the batch from the list.
// A unit is queued again, and another worker takes the batch from the ring, opens it and leaves.
TEST(Delay, AWorkerThatFoundAnOpenBatchExhaustedHidesNoUnitThatIsQueuedAgain) {
  bool reached = true;
  for (unsigned nth = 1; reached && !HasFailure(); ++nth) {
    TestPool pool;
    PoolState& state = pool.client->state();
    const Entry entry = pool.submit(4, 1, 1);
    const auto victim = pool.hire();
    const auto late = pool.hire();
    const auto leaver = pool.hire();
    ASSERT_TRUE(victim->seat.enter_next());
    ASSERT_TRUE(victim->seat.claim());
    ASSERT_TRUE(victim->seat.hand_over());
    ASSERT_TRUE(is_in_list(state, entry));
    const auto queue_again = [&] {
      pool.die(*victim);
      // The leaver has looked at the list before the batch was there, and goes on with the ring.
      OpenBatches open(&state);
      const bool was_there = is_in_list(state, entry);
      open.remove(entry);
      if (!leaver->seat.enter_next()) return;
      if (was_there) {
        EXPECT_TRUE(open.add(entry));
      }
      ASSERT_TRUE(leaver->seat.hand_over());
      leaver->seat.leave_batch();
    };
    reached = stopped_at(nth, accesses_to_state_and(pool, entry), [&] { run_all(late->seat); },
                         {queue_again});
    if (!reached) pool.die(*victim);
    finish(pool, *pool.hire());
    EXPECT_EQ(pool.lost, 0U) << "access " << nth;
    pool.expect_clean_end();
  }
}

// A thief has taken the last units of a batch, or sees that another has. Before it clears the offer
// the victim dies, its unit is queued again, and a worker that offers the batch takes its seat.
TEST(Delay, AThiefThatFoundNothingHidesNoUnitThatIsQueuedAgain) {
  for (const bool takes_units : {true, false}) {
    bool reached = true;
    for (unsigned nth = 1; reached && !HasFailure(); ++nth) {
      TestPool pool;
      const Entry entry = pool.submit(4, 1, 1);
      auto victim = pool.hire();
      const auto thief = pool.hire();
      const auto other = pool.hire();
      std::unique_ptr<TestWorker> next;
      ASSERT_TRUE(victim->seat.enter_next());
      ASSERT_TRUE(victim->seat.claim());
      TestWorker& taker = takes_units ? *thief : *other;
      ASSERT_TRUE(taker.seat.enter_next());
      for (int i = 0; i < 3; ++i) run_claim(taker.seat, *taker.seat.claim());
      const auto queue_again = [&] {
        pool.die(*victim);
        next = pool.hire();
        ASSERT_EQ(next->index, victim->index);
        ASSERT_TRUE(next->seat.enter_next());
      };
      const auto look = [&] {
        while (takes_units) {
          const auto claim = thief->seat.claim();
          if (!claim) break;
          run_claim(thief->seat, *claim);
        }
        if (takes_units) thief->seat.leave_batch();
        run_all(thief->seat);
      };
      reached = stopped_at(nth, accesses_to_state_and(pool, entry), look, {queue_again});
      if (!reached) pool.die(*victim);
      const auto finder = pool.hire();
      run_all(finder->seat);
      EXPECT_EQ(queued_units(pool, entry), 0) << "a unit is hidden at access " << nth;
      for (TestWorker* worker : {next.get(), other.get()}) {
        if (worker == nullptr || !worker->seat.batch()) continue;
        while (const auto claim = worker->seat.claim()) run_claim(worker->seat, *claim);
        worker->seat.leave_batch();
      }
      finish(pool, *finder);
      pool.expect_clean_end();
    }
  }
}

// A thief's late store moves `back` over units that were queued again. The worker that has taken
// the batch alone is in a long unit.
TEST(Delay, AThiefsLateStoreHidesNoUnitThatIsQueuedAgain) {
  for (const uint32_t late_back : {0U, 1U}) {
    TestPool pool;
    const Entry entry = pool.submit(4, 1, 1);
    const auto owner = pool.hire();
    ASSERT_TRUE(owner->seat.enter_next());
    pool.client->batch(entry.slot()).back().store(late_back);
    ASSERT_TRUE(owner->seat.claim());
    const auto finder = pool.hire();
    run_all(finder->seat);
    EXPECT_EQ(queued_units(pool, entry), 0);
    pool.die(*owner);
    finish(pool, *finder);
    pool.expect_clean_end();
  }
}

// ---- Sleepers are woken -------------------------------------------------------------------------

// A thread that runs `waits` until `waits` returns or goes to sleep without a time limit.
class Waiter {
 public:
  explicit Waiter(std::function<void()> waits)
      : thread_([this, waits = std::move(waits)] {
          id_.store(static_cast<uint32_t>(gettid()));
          waits();
          returned_.store(1);
        }) {
    while (returned_.load() == 0 && !sleeps_for_ever(static_cast<pid_t>(id_.load()))) {
      std::this_thread::yield();
    }
  }
  ~Waiter() { thread_.join(); }
  [[nodiscard]] bool sleeps() const {
    return returned_.load() == 0 && sleeps_for_ever(static_cast<pid_t>(id_.load()));
  }

 private:
  os::Atomic<uint32_t> id_, returned_;
  std::thread thread_;
};

// `waits` is stopped before its nth access while `others` give it a reason to wake: then it must
// not go to sleep. Returns whether there was an nth access.
bool stays_awake(unsigned nth, const Accesses& counted, const std::function<void()>& waits,
                 const std::function<void()>& others, const std::function<void()>& wake) {
  os::Atomic<uint32_t> stops;
  Waiter waiter([&] {
    stopped_at(nth, counted, waits, {[&] {
                 stops.store(1);
                 others();
               }});
  });
  const bool reached = stops.load() != 0;
  const bool sleeps = waiter.sleeps();
  if (sleeps) wake();
  if (!reached) return false;
  EXPECT_FALSE(sleeps) << "asleep, though there was a reason to wake before access " << nth;
  return !sleeps;
}

// A worker waits for work. `spinners`: if not 0 the worker spins first, and is stopped only at
// accesses after its spin. `has_lookout`: another worker is the lookout, and was stopped before it
// went to sleep.
void expect_worker_stays_awake(uint32_t spinners, bool has_lookout,
                               const std::function<void(TestPool&)>& others) {
  bool reached = true;
  for (unsigned nth = 1; reached; ++nth) {
    TestPool pool({1, 0, 1'000'000, spinners});
    PoolState& state = pool.client->state();
    if (has_lookout) state.lookout.store(os::ticks() + kLong);
    const auto worker = pool.hire();
    const Accesses to_place = accesses_to(&state.spinners[0], sizeof state.spinners[0]);
    unsigned spins = spinners == 0 ? 0 : 3;  // it reads its place, takes it, and gives it back
    const Accesses counted = [&, all = accesses_to_state(pool)](const void* address) {
      if (spins > 0 && to_place(address)) --spins;
      return spins == 0 && all(address);
    };
    const auto others_here = [&] { others(pool); };
    const auto wake = [&] {
      pool.client->set_phase(Phase::draining);
      pool.agent.record_exit(worker->index, {SIGKILL, 0, false});
      pool.client->set_phase(Phase::running);
    };
    reached = stays_awake(nth, counted, [&] { worker->seat.wait(); }, others_here, wake);
    pool.resolve();
    pool.client->set_phase(Phase::running);
    finish(pool, *pool.hire());
    pool.expect_clean_end();
  }
}

// Neither a waiting client nor a lookout checks again later: the wake-up itself must arrive.
TEST(Delay, AWorkerThatFallsAsleepIsToldOfABatchThoughNobodyWaitsForIt) {
  for (const uint32_t spinners : {0U, 1U}) {
    for (const bool has_lookout : {true, false}) {
      expect_worker_stays_awake(spinners, has_lookout, [](TestPool& pool) { pool.submit(1); });
    }
  }
}

TEST(Delay, AWorkerThatFallsAsleepIsToldOfTheEnd) {
  for (const uint32_t spinners : {0U, 1U}) {
    expect_worker_stays_awake(spinners, true,
                              [](TestPool& pool) { pool.client->set_phase(Phase::stopping); });
  }
}

TEST(Delay, AWorkerThatFallsAsleepIsToldOfWhatAnotherLeavesBehind) {
  expect_worker_stays_awake(0, true, [](TestPool& pool) {
    pool.submit(2);
    const auto leaver = pool.hire();
    ASSERT_TRUE(leaver->seat.enter_next());
    run_claim(leaver->seat, *leaver->seat.claim());
    ASSERT_TRUE(leaver->seat.hand_over());
    leaver->seat.leave_batch();
  });
}

// Two batches were pushed while a worker spun, so the client rang no bell. The spinner takes the
// first, and decodes something before it claims a unit.
TEST(Delay, AWorkerThatPreparesForLongWakesAnotherForWhatWaits) {
  for (const bool shared : {false, true}) {
    TestPool pool({2, 0, 1'000'000, 1});
    PoolState& state = pool.client->state();
    state.lookout.store(os::ticks() + kLong);  // no worker polls by a timer
    const auto asleep = pool.hire();
    const auto slow = pool.hire();
    Waiter waiter([&] { asleep->seat.wait(); });
    ASSERT_TRUE(waiter.sleeps());
    state.spinners[0].store(os::ticks() + kLong);
    pool.submit(shared ? 2 : 1, 1, 0, shared);
    if (!shared) pool.submit(1);
    state.spinners[0].store(0);
    EXPECT_TRUE(waiter.sleeps());
    ASSERT_TRUE(slow->seat.enter_next());
    slow->seat.prepare();
    EXPECT_FALSE(waiter.sleeps());
    state.work_bell.wake_all();
    while (const auto claim = slow->seat.claim()) run_claim(slow->seat, *claim);
    slow->seat.leave_batch();
    finish(pool, *slow);
  }
}

TEST(Delay, ASpinnerThatIsStoppedIsSoonNotReliedOn) {
  TestPool pool({2, 0, 1'000'000, 1});
  PoolState& state = pool.client->state();
  state.lookout.store(os::ticks() + kLong);  // no worker polls by a timer
  const auto asleep = pool.hire();
  const auto spinner = pool.hire();
  Waiter waiter([&] { asleep->seat.wait(); });
  ASSERT_TRUE(waiter.sleeps());
  const Accesses to_place = accesses_to(&state.spinners[0], sizeof state.spinners[0]);
  unsigned accesses = 0;
  const auto after_taking = [&](const void* address) {
    return accesses == 2 || (to_place(address) && ++accesses > 2);
  };
  const auto submit_later = [&] {
    EXPECT_TRUE(state.anyone_spins(1));
    while (state.anyone_spins(1)) std::this_thread::yield();
    pool.submit(1);
    EXPECT_FALSE(waiter.sleeps());
  };
  EXPECT_TRUE(stopped_at(1, after_taking, [&] { spinner->seat.wait(); }, {submit_later}));
  pool.agent.record_exit(asleep->index, {SIGKILL, 0, false});  // wakes it in any case
  pool.resolve();
  finish(pool, *spinner);
}

// A worker that other members rely on is stopped immediately, and the client does not wait for
// outcomes.
TEST(Delay, WhoHasATimerWakesAnotherWorkerInsteadOfOneThatIsStopped) {
  for (const bool agent_looks : {true, false}) {
    TestPool pool({2, 0, 1'000'000, 1});
    PoolState& state = pool.client->state();
    const auto worker = pool.hire();
    state.spinners[0].store(os::ticks() + kLong);
    state.lookout.store(os::ticks() + kLong);
    Waiter waiter([&] { worker->seat.wait(); });
    ASSERT_TRUE(waiter.sleeps());
    const auto look = [&] {
      if (agent_looks) {
        EXPECT_TRUE(pool.agent.orders(os::monotonic_ns()).empty());
      } else {
        EXPECT_EQ(pool.client->wait(pool.client->listen(), os::monotonic_ns(), false),
                  os::Wake::timed_out);
      }
    };
    look();
    EXPECT_TRUE(waiter.sleeps());  // there is nothing to do
    pool.submit(1);
    EXPECT_TRUE(waiter.sleeps());
    look();
    EXPECT_FALSE(waiter.sleeps());
    state.work_bell.wake_all();
    finish(pool, *pool.hire());
  }
}

// The thread that sends more input when workers need it.
TEST(Delay, AFeederThatFallsAsleepIsToldThatWorkersAreHungry) {
  bool reached = true;
  for (unsigned nth = 1; reached; ++nth) {
    TestPool pool({1, 0, 1'000'000, 0});
    const auto worker = pool.hire();
    for (int i = 0; i < 3; ++i) pool.submit(1);
    reached = stays_awake(
        nth, accesses_to_state(pool), [&] { pool.client->wait_for_hunger(true, os::kNoDeadline); },
        [&] { run_all(worker->seat); }, [&] { pool.client->ring_feeders(); });
    finish(pool, *worker);
    pool.expect_clean_end();
  }
}

TEST(Delay, AFeederIsToldOfWhatHappenedSinceItLastWaited) {
  TestPool pool({1, 0, 1'000'000, 0});
  ClientPool& client = *pool.client;
  const auto worker = pool.hire();
  for (int i = 0; i < 3; ++i) pool.submit(1);
  client.wait_for_hunger(true, os::monotonic_ns());  // not hungry yet
  run_all(worker->seat);
  client.wait_for_hunger(false, os::kNoDeadline);
  client.ring_feeders();
  client.wait_for_hunger(false, os::kNoDeadline);
  Waiter waiter([&] { client.wait_for_hunger(false, os::kNoDeadline); });
  EXPECT_TRUE(waiter.sleeps());  // nothing more has happened
  client.ring_feeders();
}

}  // namespace
}  // namespace shoal::pool
