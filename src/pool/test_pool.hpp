// SPDX-License-Identifier: Apache-2.0
//
// TestPool: a pool whose client, agent and workers are objects of one process (or of forked
// children), for tests. A test's arguments are inline words: word_of(value). The result for `value`
// is word_of(2 * value), or for every third value a record with that number, for every sixth with
// an attachment.
#pragma once

#include <cstring>
#include <map>
#include <vector>

#include "arena/test_session.hpp"
#include "os/clock.hpp"
#include "pool/client.hpp"
#include "pool/supervisor.hpp"
#include "pool/worker.hpp"

namespace shoal::pool {

inline uint64_t word_of(uint64_t value) { return value << 3 | 1; }
inline uint64_t value_of(uint64_t word) { return word >> 3; }

// A worker in this process: member and seat. abandon() lets it die.
struct TestWorker {
  TestWorker(arena::TestSession& session, Handle pool, int seat_index)
      : index(static_cast<uint32_t>(seat_index)),
        member(session.join()),
        seat(*member, pool, index) {
    seat.ready();
  }
  void abandon() { member->abandon_for_test(); }

  uint32_t index;
  std::unique_ptr<arena::Member> member;
  WorkerSeat seat;
};

// Publishes the result of one item.
inline void publish(WorkerSeat& seat, const WorkerSeat::Claim& claim, uint32_t item, bool last) {
  const uint64_t value = value_of(seat.batch().argument_words()[claim.unit].load()) +
                         (seat.batch().items_per_unit > 1 ? item : 0);
  uint64_t word = word_of(2 * value);
  if (value % 3 == 0) {
    const uint64_t number = 2 * value;
    Handle attachment = value % 6 == 0 ? seat.member().allocate(100) : 0;
    word = seat.write_record(reinterpret_cast<const std::byte*>(&number), sizeof number,
                             &attachment, attachment != 0 ? 1 : 0, 0);
  }
  seat.publish_item(claim, item, word, last);
}

// Runs a whole unit. Its one result is that of its first item.
inline void run_whole(WorkerSeat& seat, const WorkerSeat::Claim& claim) {
  seat.begin_unit(claim, 0);
  for (uint32_t item = 1; item <= seat.batch().item_count(claim.unit); ++item) {
    seat.note_progress(claim, item);
  }
  const uint64_t value = value_of(seat.batch().argument_words()[claim.unit].load());
  seat.publish_whole(claim, word_of(2 * value));
  seat.end_unit();
}

inline void run_claim(WorkerSeat& seat, const WorkerSeat::Claim& claim) {
  if (seat.batch().flags & kWholeUnits) return run_whole(seat, claim);
  const uint32_t items = seat.batch().item_count(claim.unit);
  for (uint32_t item = claim.progress; item < items; ++item) {
    seat.begin_unit(claim, 0);
    publish(seat, claim, item, item + 1 == items);
    seat.end_unit();
  }
}

// Runs all queued units; returns how many there were.
inline int run_all(WorkerSeat& seat) {
  int count = 0;
  while (seat.enter_next()) {
    while (const auto claim = seat.claim()) {
      run_claim(seat, *claim);
      ++count;
    }
    seat.leave_batch();
  }
  return count;
}

class TestPool {
 public:
  explicit TestPool(PoolOptions options = {4, 0, 1'000'000, 0})
      : agent_member(session.join()),
        client(std::make_unique<ClientPool>(*session.me, options)),
        agent(*agent_member, client->handle()) {}

  std::unique_ptr<TestWorker> hire() {
    return std::make_unique<TestWorker>(session, client->handle(), agent.take_seat());
  }
  // Kills the worker; the agent records the death, then the client resolves it.
  void die(TestWorker& worker, uint32_t status = SIGKILL) {
    worker.abandon();
    agent.record_exit(worker.index, {status, 0, false});
    resolve();
  }
  bool resolve() {
    return client->resolve_deaths(
        [this](uint32_t slot, uint32_t unit, uint32_t item, const ClientPool::Death&) {
          const Batch& batch = client->batch(slot);
          const bool whole = (batch.flags & kWholeUnits) != 0;
          ++losses[batch.argument_words()[unit].load() + 8 * (whole ? 0 : item)];
          lost += whole ? batch.item_count(unit) : 1;
        });
  }

  Entry submit_whole(uint32_t units, uint32_t items_per_unit, uint32_t retries = 0) {
    return submit(units, items_per_unit, retries, false, kWholeUnits);
  }
  Entry submit_shared(uint32_t units, uint32_t items_per_unit = 1) {
    return submit(units, items_per_unit, 0, true);
  }
  Entry submit(uint32_t units, uint32_t items_per_unit = 1, uint32_t retries = 0,
               bool shared = false, uint32_t flags = 0) {
    std::vector<uint64_t> words;
    for (uint32_t i = 0; i < units; ++i, next_ += items_per_unit) words.push_back(word_of(next_));
    BatchParts parts;
    parts.argument_words = words.data();
    parts.units = units;
    parts.items = units * items_per_unit;
    parts.items_per_unit = items_per_unit;
    parts.retries = retries;
    parts.shared = shared;
    parts.flags = flags;
    const Handle attachment = session.me->allocate(200);
    parts.attachments = &attachment;
    parts.attachment_count = 1;
    submitted += parts.items;
    return client->submit(parts);
  }

  // Reads all batches that have ended, checks each outcome, frees them. Returns whether all have
  // ended.
  bool collect() {
    std::vector<uint32_t> slots;
    client->take_dirty(slots);
    for (const uint32_t slot : slots) {
      if (has_ended(slot)) read(slot);
    }
    return !client->anything_in_flight();
  }

  void expect_everything_done() {
    EXPECT_TRUE(collect());
    EXPECT_EQ(results + lost + cancelled, submitted);
    for (const auto& [word, times] : losses) EXPECT_EQ(times, 1) << "loss reported twice: " << word;
  }

  // Checks that no block is left after the pool has been destroyed.
  void expect_clean_end() {
    client.reset();
    arena::reap_all_dead(*session.arena, *session.me);
    session.arena->check();
    EXPECT_EQ(session.blocks(), 0U);
  }

  arena::TestSession session;
  std::unique_ptr<arena::Member> agent_member;
  std::unique_ptr<ClientPool> client;
  Supervisor agent;
  std::map<uint64_t, int> losses;  // by word
  uint64_t submitted = 0, results = 0, lost = 0, cancelled = 0;

 private:
  bool has_ended(uint32_t slot) {
    const Batch batch = client->batch(slot);
    for (uint32_t i = 0; i < batch.units; ++i) {
      // order: acquire; pairs with the release stores in WorkerSeat that publish results
      if (!Unit::of(batch.unit_words()[i].load(os::acquire)).final()) return false;
    }
    return true;
  }
  void read(uint32_t slot) {
    const Batch batch = client->batch(slot);
    for (uint32_t unit = 0; unit < batch.units; ++unit) {
      // order: acquire; as above
      const Unit state = Unit::of(batch.unit_words()[unit].load(os::acquire));
      cancelled += batch.item_count(unit) - state.progress;
      const bool whole = (batch.flags & kWholeUnits) != 0 && state.progress > 0;
      for (uint32_t item = 0; item < (whole ? 1 : state.progress); ++item) {
        read_item(batch, unit, item);
      }
      const uint64_t word = batch.result_words()[batch.first_item(unit)].load();
      if (whole && word != kLostItem) results += state.progress - 1;
    }
    client->retire(slot);
  }
  void read_item(const Batch& batch, uint32_t unit, uint32_t item) {
    const uint64_t value = value_of(batch.argument_words()[unit].load()) + item;
    const uint64_t word = batch.result_words()[batch.first_item(unit) + item].load();
    if (word == kLostItem) {
      EXPECT_EQ(losses[word_of(value)], 1) << value;
      return;
    }
    ++results;
    uint64_t number = value_of(word);
    if (word_is_offset(word)) {
      std::memcpy(&number, session.arena->at<ResultRecord>(word_offset(word))->value(),
                  sizeof number);
    }
    EXPECT_EQ(number, 2 * value);
  }

  uint64_t next_ = 100;
};

}  // namespace shoal::pool
