// SPDX-License-Identifier: Apache-2.0
//
// Deaths of workers, agents and clients: only the running item is lost, every other item is done
// once, nothing leaks. Workers are objects that are abandoned, or forked children that are killed
// at each kill point of the pool.
#include "pool/test_pool.hpp"

#include <csignal>
#include <thread>

#include "testing/kill_point.hpp"

namespace shoal::pool {
namespace {

void finish(TestPool& pool) {
  const auto worker = pool.hire();
  run_all(worker->seat);
  pool.expect_everything_done();
}

TEST(Death, TheItemThatRanIsLost) {
  TestPool pool;
  pool.submit(3, 4);
  auto victim = pool.hire();
  ASSERT_TRUE(victim->seat.enter_next());
  const auto claim = victim->seat.claim();
  publish(victim->seat, *claim, 0, false);
  publish(victim->seat, *claim, 1, false);
  victim->seat.begin_unit(*claim, 0);
  pool.die(*victim);
  EXPECT_EQ(pool.lost, 1U);
  EXPECT_EQ(pool.losses.begin()->first & 7, 1U);
  finish(pool);
  EXPECT_EQ(pool.results, 11U);
  victim.reset();
  pool.expect_clean_end();
}

TEST(Death, RetriesRunTheItemAgain) {
  TestPool pool;
  pool.submit(2, 3, 2);
  for (int times = 0; times < 3; ++times) {
    auto victim = pool.hire();
    ASSERT_TRUE(victim->seat.enter_next());
    ASSERT_TRUE(victim->seat.claim());
    pool.die(*victim);
    EXPECT_EQ(pool.lost, times < 2 ? 0U : 1U);
  }
  finish(pool);
  EXPECT_EQ(pool.results, 5U);
  pool.expect_clean_end();
}

TEST(Death, AWholeUnitIsLostOrRunAgainAsAWhole) {
  for (const uint32_t retries : {0U, 1U}) {
    TestPool pool;
    const Entry entry = pool.submit_whole(2, 3, retries);
    auto victim = pool.hire();
    ASSERT_TRUE(victim->seat.enter_next());
    const auto claim = victim->seat.claim();
    victim->seat.begin_unit(*claim, 0);
    victim->seat.note_progress(*claim, 2);
    pool.die(*victim);
    const Unit unit = Unit::of(pool.client->batch(entry.slot()).unit_words()[0].load());
    EXPECT_EQ(unit.state, retries == 0 ? UnitState::done : UnitState::queued);
    EXPECT_EQ(unit.progress, retries == 0 ? 3U : 0U);
    finish(pool);
    EXPECT_EQ(pool.lost, retries == 0 ? 3U : 0U);
    EXPECT_EQ(pool.results, retries == 0 ? 3U : 6U);
    pool.expect_clean_end();
  }
}

TEST(Death, AStoppedUnitIsCancelledOrTimedOut) {
  for (const StopReason reason : {StopReason::cancel, StopReason::timeout}) {
    TestPool pool;
    const Entry entry = pool.submit(1);
    const auto victim = pool.hire();
    ASSERT_TRUE(victim->seat.enter_next());
    victim->seat.begin_unit(*victim->seat.claim(), 0);
    EXPECT_TRUE(pool.client->request_stop(entry.slot(), 0, reason));
    const Batch batch = pool.client->batch(entry.slot());
    pool.die(*victim);
    const Unit unit = Unit::of(batch.unit_words()[0].load());
    EXPECT_EQ(pool.lost, 0U);
    if (reason == StopReason::cancel) {
      EXPECT_EQ(unit.state, UnitState::cancelled);
    } else {
      EXPECT_EQ(unit.state, UnitState::done);
      EXPECT_EQ(batch.result_words()[0].load(), kTimedOutItem);
    }
  }
}

TEST(Death, AUnitQueuedAgainIsFoundThoughAHintSaysOtherwise) {
  TestPool pool;
  const Entry entry = pool.submit(10);
  auto victim = pool.hire();
  ASSERT_TRUE(victim->seat.enter_next());
  for (int i = 0; i < 3; ++i) run_claim(victim->seat, *victim->seat.claim());
  victim->seat.leave_batch();  // like a worker that has run its share of units
  pool.die(*victim, 0);
  pool.client->batch(entry.slot()).front().store(8);  // a late store of another worker
  finish(pool);
  EXPECT_EQ(pool.results, 10U);
  pool.expect_clean_end();
}

TEST(Death, TheWorkersOfADeadAgentOfferNothing) {
  TestPool pool;
  pool.submit(2);
  const auto worker = pool.hire();
  ASSERT_TRUE(worker->seat.enter_next());
  PoolState& state = pool.client->state();
  ASSERT_EQ(state.next_offering(0, pool.client->seats()), worker->index);
  worker->abandon();
  ASSERT_TRUE(pool.client->bury_workers_of_dead_agent());
  EXPECT_EQ(state.next_offering(0, pool.client->seats()), pool.client->seats());
  pool.resolve();
  finish(pool);
  pool.expect_clean_end();
}

TEST(Death, TheErrorOfAFailedStartThatNobodyTookIsFreed) {
  TestPool pool;
  const auto worker = pool.hire();
  const Handle error = worker->member->allocate(1000);
  worker->member->give_to_block(error, pool.client->handle());
  pool.client->state().failure.store(error);
  pool.die(*worker);
  pool.expect_clean_end();
}

TEST(Death, AThiefFindsUnitsInTheMiddle) {
  TestPool pool;
  pool.submit(8);
  auto victim = pool.hire();
  auto owner = pool.hire();
  ASSERT_TRUE(owner->seat.enter_next());
  const auto mine = owner->seat.claim();
  ASSERT_TRUE(victim->seat.enter_next());
  run_claim(victim->seat, *victim->seat.claim());
  pool.die(*victim);
  owner->seat.begin_unit(*mine, 0);  // a long unit
  const auto thief = pool.hire();
  EXPECT_EQ(run_all(thief->seat), 6);
  owner->seat.end_unit();
  run_claim(owner->seat, *mine);
  owner->seat.leave_batch();
  run_all(owner->seat);
  pool.expect_everything_done();
  pool.expect_clean_end();
}

TEST(Death, APendingBlockOfAnotherIsLeftAlone) {
  TestPool pool;
  const Entry entry = pool.submit(4);
  auto victim = pool.hire();
  const auto other = pool.hire();
  ASSERT_TRUE(other->seat.enter_next());
  ASSERT_TRUE(victim->seat.enter_next());
  const Handle batch = pool.client->batch_handle(entry.slot());
  // The victim's block was reaped, and `other` has allocated it again and just given it to the
  // batch.
  const Handle block = other->member->allocate(1000);
  auto* result = new (pool.session.arena->address(block)) ResultBlock{};
  result->magic = kResultMagic;
  result->maker = other->member->incarnation();
  other->member->give_to_block(block, batch);
  victim->seat.seat().pending.store(block);
  pool.die(*victim);
  EXPECT_EQ(pool.session.arena->owner_word(block).load(), arena::owner_block(batch));
  EXPECT_TRUE(pool.session.me->free_child(block, batch));
  while (const auto claim = other->seat.claim()) run_claim(other->seat, *claim);
  other->seat.leave_batch();
  run_all(other->seat);
  pool.expect_everything_done();
  pool.expect_clean_end();
}

TEST(Death, CrashingStartsEndAPoolSoonerThanKilledOnes) {
  const auto starts_until_given_up = [](uint32_t status) {
    TestPool pool;
    int count = 0;
    while (pool.client->state().failed_starts.load() < kStartPatience) {
      const int seat = pool.agent.take_seat();
      const auto member = pool.session.join();
      WorkerSeat starting(*member, pool.client->handle(), static_cast<uint32_t>(seat));
      member->abandon_for_test();
      pool.agent.record_exit(static_cast<uint32_t>(seat), {status, 0, false});
      pool.resolve();
      ++count;
    }
    return count;
  };
  EXPECT_EQ(starts_until_given_up(1 << 8), 3);
  EXPECT_EQ(starts_until_given_up(SIGSEGV), 3);
  EXPECT_GT(starts_until_given_up(SIGKILL), 100);
}

// ---- Kill points --------------------------------------------------------------------------------

// Runs `life` in a child that dies when it passes the point for the nth time. True if the child was
// killed there.
bool dies_at(const std::string& name, unsigned nth, const std::function<void()>& life) {
  const int status = arena::in_child([&] {
    testing::arm_kill_point(name.c_str(), nth);
    life();
    return ::testing::Test::HasFailure() ? 1 : 0;
  });
  EXPECT_TRUE(arena::killed(status) || arena::succeeded(status))
      << name << " " << nth << " " << status;
  return arena::killed(status);
}

void worker_life(TestPool& pool, uint32_t index) {
  const auto member = pool.session.join();
  WorkerSeat seat(*member, pool.client->handle(), index);
  seat.ready();
  ASSERT_TRUE(seat.enter_next());
  const auto first = seat.claim();
  seat.begin_unit(*first, 0);
  seat.publish_cancelled(*first, 0);
  seat.end_unit();
  ASSERT_TRUE(seat.hand_over());
  seat.leave_batch();
  run_all(seat);
  seat.wait();  // returns without sleeping, since the pool drains
  member->leave();
}

bool kill_worker(const std::string& name, unsigned nth) {
  const uint32_t spinners = name == "pool.lookout.begin" ? 0 : 1;  // else it spins
  TestPool pool({4, 0, 1'000'000, spinners});
  pool.submit(5);
  pool.submit(3, 4);
  pool.submit_shared(12);
  pool.submit_whole(2, 3);
  pool.client->set_phase(Phase::draining);
  const int index = pool.agent.take_seat();
  const bool killed = dies_at(name, nth, [&] { worker_life(pool, static_cast<uint32_t>(index)); });
  pool.agent.record_exit(static_cast<uint32_t>(index), {killed ? SIGKILL : 0U, 0, false});
  pool.resolve();
  EXPECT_LE(pool.losses.size(), killed ? 1U : 0U) << name << " " << nth;
  // Other members do not rely on a dead spinner forever.
  while (pool.client->state().anyone_spins(kSpinners)) std::this_thread::yield();
  finish(pool);
  EXPECT_EQ(pool.results + pool.lost + pool.cancelled, 5U + 12U + 12U + 6U);
  EXPECT_LE(pool.cancelled, 1U);
  pool.expect_clean_end();
  return killed;
}

// The agent's life, with workers that die by themselves.
void agent_life(TestPool& pool) {
  const auto member = pool.session.join();
  Supervisor agent(*member, pool.client->handle());
  for (int i = 0; i < 2; ++i) {
    const int index = agent.take_seat();
    const auto worker = pool.session.join();
    {
      WorkerSeat seat(*worker, pool.client->handle(), static_cast<uint32_t>(index));
      seat.ready();
      ASSERT_TRUE(seat.enter_next());
      ASSERT_TRUE(seat.claim());
    }
    worker->abandon_for_test();
    agent.record_exit(static_cast<uint32_t>(index), {SIGKILL, 0, false});
  }
  const int index = agent.take_seat();
  const auto leaver = pool.session.join();
  {
    WorkerSeat seat(*leaver, pool.client->handle(), static_cast<uint32_t>(index));
    seat.ready();
    seat.seat().exit_kind.store(static_cast<uint32_t>(ExitKind::planned));
  }
  leaver->leave();
  agent.record_exit(static_cast<uint32_t>(index), {0, 0, false});
  member->leave();
}

bool kill_agent(const std::string& name, unsigned nth) {
  TestPool pool;
  pool.submit(4);
  pool.submit(3, 2);
  const bool killed = dies_at(name, nth, [&] { agent_life(pool); });
  EXPECT_TRUE(pool.client->bury_workers_of_dead_agent());
  arena::reap_all_dead(*pool.session.arena, *pool.session.me);
  pool.resolve();
  EXPECT_LE(pool.lost, 2U);
  EXPECT_EQ(pool.client->live_workers(), 0U);
  finish(pool);
  pool.expect_clean_end();
  return killed;
}

void client_life(arena::TestSession& session) {
  const auto member = session.join();
  ClientPool client(*member, {2, 0, 0, 0});
  client.append_definition(reinterpret_cast<const std::byte*>("abc"), 3);
  const uint64_t words[] = {word_of(1), word_of(2), word_of(3)};
  BatchParts parts;
  parts.argument_words = words;
  parts.units = parts.items = 3;
  const Entry entry = client.submit(parts);
  const auto other = session.join();
  Supervisor agent(*other, client.handle());
  const int index = agent.take_seat();
  const auto worker = session.join();
  {
    WorkerSeat seat(*worker, client.handle(), static_cast<uint32_t>(index));
    seat.ready();
    ASSERT_TRUE(seat.enter_next());
    run_claim(seat, *seat.claim());
    ASSERT_TRUE(seat.claim());
  }
  worker->abandon_for_test();
  agent.record_exit(static_cast<uint32_t>(index), {SIGKILL, 0, false});
  client.resolve_deaths([](uint32_t, uint32_t, uint32_t, const ClientPool::Death&) {});
  client.cancel_queued(entry.slot(), 2);
  client.retire(entry.slot());
  other->leave();
}

bool kill_client(const std::string& name, unsigned nth) {
  arena::TestSession session;
  const bool killed = dies_at(name, nth, [&] { client_life(session); });
  arena::reap_all_dead(*session.arena, *session.me);
  session.arena->check();
  EXPECT_EQ(session.blocks(), 0U) << name << " " << nth;
  return killed;
}

std::vector<std::string> pool_kill_points() {
  std::vector<std::string> names;
  for (const std::string& name : testing::kill_point_names())
    if (name.rfind("pool.", 0) == 0) names.push_back(name);
  return names;
}

class PoolKillPoint : public ::testing::TestWithParam<std::string> {};

TEST_P(PoolKillPoint, EveryUnitHasOneOutcomeAndNothingLeaks) {
  bool passed = false;
  for (const auto kill : {kill_worker, kill_agent, kill_client}) {
    for (unsigned nth = 1; nth <= 4; ++nth) {
      if (!kill(GetParam(), nth)) break;
      passed = true;
    }
  }
  EXPECT_TRUE(passed) << "no process passes this point";
}

std::string test_name(const ::testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  for (char& c : name)
    if (c == '.') c = '_';
  return name;
}

INSTANTIATE_TEST_SUITE_P(Pool, PoolKillPoint, ::testing::ValuesIn(pool_kill_points()), test_name);

}  // namespace
}  // namespace shoal::pool
