// SPDX-License-Identifier: Apache-2.0
#include "pool/worker.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "os/clock.hpp"
#include "os/process.hpp"
#include "sync/wait.hpp"
#include "testing/kill_point.hpp"

namespace shoal::pool {

namespace {

constexpr int64_t kSpinNs = 30'000;  // docs/design/sync.md, Waiting
// Other members rely on a spinner for this long. On a busy machine the spinner may lose its
// processor for some milliseconds, and waking another worker in that time would make the machine
// busier.
constexpr int64_t kRelyNs = 20'000'000;
// while a batch runs, the client is told of results at least this often
constexpr int64_t kTellNs = 500'000;
// a worker in a batch asks sleepers for help this often; a unit that runs longer makes it "stuck"
constexpr int64_t kHelpNs = 50'000;
// a worker that is alone in a batch for longer than this opens it to all: the batch takes longer
// than the client expected
constexpr int64_t kAloneNs = 2'000'000;
// a lookout polls this often, and kLooks times in a row before it sleeps like the others
constexpr int64_t kLookNs = 250'000;
constexpr int kLooks = 8;
constexpr uint64_t kSmallBlock = uint64_t{8} * 1024;  // result blocks of small records

uint64_t to_ticks(int64_t ns) noexcept {
  return static_cast<uint64_t>(static_cast<double>(ns) / os::ns_per_tick());
}

void add(os::Atomic<uint64_t>& counter, uint64_t amount) noexcept {
  // order: relaxed; only this worker writes its counters; readers accept any recent value
  counter.store(counter.load(os::relaxed) + amount, os::relaxed);
}

}  // namespace

WorkerSeat::WorkerSeat(arena::Member& member, Handle pool, uint32_t seat)
    : member_(member),
      pool_(member.arena().at<PoolState>(pool)),
      seats_(PoolState::seats_of(member.arena(), pool)),
      spinner_limit_(std::min(pool_->spinner_limit, kSpinners)),
      index_(seat),
      seat_(pool_->seat(seat)),
      open_(pool_),
      steal_from_(seat),
      spin_ticks_(to_ticks(kSpinNs)),
      rely_ticks_(to_ticks(kRelyNs)),
      tell_ticks_(to_ticks(kTellNs)),
      help_ticks_(to_ticks(kHelpNs)),
      alone_ticks_(to_ticks(kAloneNs)),
      look_ticks_(to_ticks(kLookNs)) {
  seat_->pid.store(static_cast<uint32_t>(os::own_pid()));
  // COMMIT(pool.seat.starting): killed before: the agent knows the child by its pid only; after: by
  // its incarnation too.
  seat_->life.store(life_word(Life::starting, member_.incarnation()));
  SHOAL_KILL_POINT("pool.seat.starting");
}

void WorkerSeat::ready() noexcept {
  // COMMIT(pool.seat.ready): killed before: a failed start; after: a worker's death.
  seat_->life.store(life_word(Life::ready, member_.incarnation()));
  SHOAL_KILL_POINT("pool.seat.ready");
  pool_->failed_starts.store(0);
}

bool WorkerSeat::should_leave() const noexcept {
  return static_cast<Phase>(pool_->phase.load()) == Phase::stopping;
}

// ---- Waiting ------------------------------------------------------------------------------------

bool WorkerSeat::may_have_work() const noexcept {
  return pool_->ring_head.load() != pool_->ring_tail.load() || open_.maybe_any() ||
         static_cast<Phase>(pool_->phase.load()) != Phase::running;
}

os::Atomic<uint64_t>* WorkerSeat::take_spinner_place(uint64_t now) noexcept {
  for (uint32_t i = 0; i < spinner_limit_; ++i) {
    os::Atomic<uint64_t>& place = pool_->spinners[i];
    uint64_t holder = place.load();
    if (holder > now) continue;
    // COMMIT(pool.spin.place): killed before: nothing; after: other members rely on a spinner until
    // the time in the word has passed, or the agent has recorded the death and wakes all workers.
    if (!place.compare_exchange(holder, now + rely_ticks_)) continue;
    SHOAL_KILL_POINT("pool.spin.place");
    return &place;
  }
  return nullptr;
}

// True when there may be work. Returns false without spinning if all spinner places are taken.
bool WorkerSeat::spin() noexcept {
  const uint64_t begin = os::ticks();
  os::Atomic<uint64_t>* const place = take_spinner_place(begin);
  if (place == nullptr) return false;
  bool found = false;
  for (uint32_t i = 1; !(found = may_have_work()) && os::ticks() - begin < spin_ticks_; ++i) {
    i % 16 == 0 ? sync::yield_processor() : os::cpu_relax();
  }
  // Before the last check for work: a client that saw this spinner rang no bell. A spinner that was
  // stopped and resumes here may clear the place of another spinner, which costs a superfluous
  // wake-up.
  place->store(0);
  return found || may_have_work();
}

// One idle worker at a time is the lookout: it wakes by a timer to look for units that other
// workers offer. The word holds the time until which other workers rely on the lookout, so they
// soon stop relying on one that is stopped or killed.
bool WorkerSeat::become_lookout() noexcept {
  const uint64_t now = os::ticks();
  uint64_t until = pool_->lookout.load();
  if (until > now) return false;
  // COMMIT(pool.lookout.begin): killed before: nothing; after: there is no lookout until the time
  // in the word has passed.
  const bool mine = pool_->lookout.compare_exchange(until, now + 2 * look_ticks_);
  SHOAL_KILL_POINT("pool.lookout.begin");
  return mine;
}

// Announces the sleep before the last check for work, so a member that publishes work after that
// check sees that a worker must be woken (sync/wait.hpp).
os::Wake WorkerSeat::sleep_unless_work(int64_t deadline_ns) noexcept {
  const uint32_t seen = pool_->work_bell.prepare();
  if (may_have_work() || pool_->anyone_offers(seats_)) return os::Wake::changed;
  return os::futex_wait(&pool_->work_bell.word(), seen, deadline_ns);
}

// Sleeps, but looks for work every kLookNs. A result other than timed_out ends the worker's sleep.
os::Wake WorkerSeat::look_out() noexcept {
  os::Wake wake = os::Wake::timed_out;
  for (int looks = 0; looks < kLooks && wake == os::Wake::timed_out; ++looks) {
    pool_->lookout.store(os::ticks() + 2 * look_ticks_);
    wake = sleep_unless_work(os::monotonic_ns() + kLookNs);
  }
  // before the caller's last look: a worker that saw a lookout rang no bell
  pool_->lookout.store(0);
  return wake;
}

os::Wake WorkerSeat::sleep_until_work() noexcept {
  add(seat_->sleeps, 1);
  if (become_lookout()) {
    const os::Wake wake = look_out();
    if (wake != os::Wake::timed_out) return wake;
  }
  return sleep_unless_work(os::kNoDeadline);
}

WorkerSeat::Wait WorkerSeat::wait() noexcept {
  const uint64_t begin = os::ticks();
  Wait result = Wait::work;
  if (!spin() && sleep_until_work() == os::Wake::interrupted) result = Wait::interrupted;
  add(seat_->wait_ticks, os::ticks() - begin);
  // a spurious wake-up, or work in another worker's batch: the caller looks again
  if (result == Wait::work && !may_have_work()) return Wait::work;
  if (static_cast<Phase>(pool_->phase.load()) != Phase::running &&
      (should_leave() ||
       (pool_->ring_head.load() == pool_->ring_tail.load() && !open_.maybe_any()))) {
    return Wait::leave;
  }
  return result;
}

bool WorkerSeat::somebody_looks() const noexcept {
  return pool_->anyone_spins(spinner_limit_) || pool_->lookout.load() > os::ticks();
}

// Called when this worker has claimed its first unit of the batch. That unit may run for an hour,
// so sleeping workers must learn of the remaining units before it begins. If those may be long,
// this worker wakes one sleeper now, and each woken worker wakes the next. For quick units a
// wake-up costs more than the units; if one of them is long after all, a spinner's last look or the
// lookout finds the rest.
void WorkerSeat::look_after_rest() noexcept {
  looked_after_ = true;
  running_since_ = os::ticks();
  wake_for_rest();
}

void WorkerSeat::wake_for_rest() noexcept {
  if (!pool_->work_bell.has_waiters()) return;
  const bool more_here = from_back_ ? next_unit_ > batch_.front().load() : next_unit_ < last_unit_;
  const uint64_t passed = pool_->ring_head.load() + (ring_at_ != kNotInRing ? 1 : 0);
  const bool long_ones = (way_ == Way::shared && more_here) || passed < pool_->ring_tail.load();
  const bool quick_ones = more_here || pool_->anyone_offers(seats_);
  if (long_ones || (quick_ones && !somebody_looks())) pool_->work_bell.notify_one();
}

// The ring's head is now `head`: the client may have more to send, but be busy with something else.
void WorkerSeat::ask_for_more(uint64_t head) noexcept {
  const uint32_t low = pool_->low_water.load();
  if (low != 0 && pool_->ring_tail.load() < head + low) pool_->hunger_bell.notify_all();
}

// ---- Entering a batch ---------------------------------------------------------------------------

bool WorkerSeat::enter(Entry entry) noexcept {
  // seq_cst; pairs with the client's emptying of the table word (retire)
  // COMMIT(pool.enter.entered): killed before: nothing; after: the client keeps the batch's memory
  // until it resolves this death, which clears the word.
  seat_->entered.store(entry.value);
  SHOAL_KILL_POINT("pool.enter.entered");
  const uint64_t word = pool_->table[entry.slot()].load();
  const Handle handle = table_block(word);
  const auto batch =
      table_matches(word, entry) ? Batch::fetch(member_.arena(), handle, entry) : std::nullopt;
  if (!batch) {
    seat_->entered.store(0);
    return false;
  }
  batch_ = *batch;
  batch_handle_ = handle;
  entry_ = entry;
  result_block_ = 0;
  first_.reset();
  unsent_ = exhausted_ = looked_after_ = from_back_ = false;
  ring_at_ = kNotInRing;
  items_run_ = 0;
  entered_ticks_ = told_ticks_ = asked_ticks_ = os::ticks();
  // order: relaxed; a stale value makes a thief help this worker too early or too late, nothing
  // worse
  seat_->begun_ticks.store(entered_ticks_, os::relaxed);
  return true;
}

void WorkerSeat::start_at_front(Way way) noexcept {
  way_ = way;
  from_back_ = false;
  const uint32_t front = batch_.front().load();
  next_unit_ = begun_at_ = front < batch_.units ? front : 0;
  last_unit_ = batch_.units;
}

bool WorkerSeat::enter_open() noexcept {
  while (const Entry entry = open_.oldest()) {
    const uint64_t head = pool_->ring_head.load();
    const bool ring_is_empty = head == pool_->ring_tail.load();
    const Entry first = ring_entry(pool_->ring[head % kRingSlots].load());
    if (!ring_is_empty && first.generation() < entry.generation()) return false;
    if (enter(entry)) {
      start_at_front(Way::shared);
      return true;
    }
    open_.remove(entry);
  }
  return false;
}

// An entry leaves the ring only after other workers can find the batch's units without it, and the
// agent and the client can see which worker has the batch: `entered` names the batch, and its units
// are claimed, or offered by this seat. So a worker that is stopped here hides no unit.
bool WorkerSeat::enter_from_ring() noexcept {
  for (;;) {
    uint64_t head = pool_->ring_head.load();
    const uint64_t tail = pool_->ring_tail.load();
    if (head == tail) return false;
    // The client overwrites this place only after head has passed it; then the compare-exchange of
    // head below, and the one in leave_batch(), fail.
    const uint64_t word = pool_->ring[head % kRingSlots].load();
    const bool alone = (word & kForOneWorker) != 0;
    const bool entered = enter(ring_entry(word));
    if (entered && !alone) {
      ring_at_ = head;
      start_at_front(Way::shared);
      return true;
    }
    if (entered) offer_or_claim();
    // COMMIT(pool.ring.pop): killed before: the entry is in the ring; after: the agent opens the
    // batch when it records the death. A batch that was not entered has ended: after a death it may
    // be in the ring twice.
    const bool popped = pool_->ring_head.compare_exchange(head, head + 1);
    SHOAL_KILL_POINT("pool.ring.pop");
    if (popped) ask_for_more(head + 1);
    if (first_ || (entered && popped && batch_.units > 1)) {
      add(seat_->batches, 1);
      return true;
    }
    if (entered) withdraw();
  }
}

// Makes the rest of a batch that this worker takes alone visible to others.
void WorkerSeat::offer_or_claim() noexcept {
  start_at_front(Way::alone);
  if (batch_.units == 1) {
    first_ = try_claim(0);
    next_unit_ = last_unit_ = 1;
    begun_at_ = 0;
    return;
  }
  // COMMIT(pool.offers): killed before or after: the batch is in the ring, and the agent opens it
  // when it records the death.
  if (!offering_) pool_->begin_offering(index_);
  offering_ = true;
  seat_->offers.store(entry_.value);
  SHOAL_KILL_POINT("pool.offers");
}

// Leaves a batch of which this worker has claimed nothing.
void WorkerSeat::withdraw() noexcept {
  stop_offering();
  batch_ = Batch{};
  seat_->entered.store(0);
}

bool WorkerSeat::steal_from(Seat& victim, Entry entry, bool stuck) noexcept {
  const bool entered = enter(entry);
  if (entered) {
    const uint32_t back = batch_.back().load();
    const uint32_t front = batch_.front().load();
    if (stuck ? front < batch_.units : back > 0 && back <= batch_.units && front < back) {
      start_at_front(Way::thief);
      victim_ = &victim;
      from_back_ = !stuck;
      if (from_back_) next_unit_ = back;
      return true;
    }
  }
  uint64_t offered = entry.value;
  victim.offers.compare_exchange(offered, 0);
  if (entered) {  // units may have been queued again meanwhile: see claim_after_clearing()
    if (any_queued(0, batch_.units)) {
      (void)open_.add(entry);
      start_at_front(Way::shared);
      return true;
    }
    withdraw();
  }
  return false;
}

// only_stuck: steals only from workers that are in a long unit, and only from batches that were
// submitted before the ring's first batch.
bool WorkerSeat::enter_as_thief(bool only_stuck) noexcept {
  const uint64_t now = looked_ticks_ = os::ticks();
  const uint64_t head = pool_->ring_head.load();
  const uint64_t next = ring_entry(pool_->ring[head % kRingSlots].load()).generation();
  const auto steal_among = [&](uint32_t first, uint32_t end) {
    for (uint32_t i = first; (i = pool_->next_offering(i, end)) < end; ++i) {
      Seat* victim = pool_->seat(i);
      const Entry entry{victim->offers.load()};
      if (victim == seat_ || !entry || life_of(victim->life.load()) != Life::ready) continue;
      // order: relaxed; as in enter()
      const bool stuck = now > victim->begun_ticks.load(os::relaxed) + help_ticks_;
      if (only_stuck && (!stuck || entry.generation() > next)) continue;
      steal_from_ = i + 1;  // the next theft begins behind this seat
      if (steal_from(*victim, entry, stuck)) return true;
    }
    return false;
  };
  const uint32_t first = steal_from_;
  return steal_among(first, seats_) || steal_among(0, std::min(first, seats_));
}

bool WorkerSeat::enter_next() noexcept {
  if (should_leave()) return false;
  if (open_.maybe_any() && enter_open()) return true;
  // order: relaxed; only this worker writes it
  const bool look = seat_->begun_ticks.load(os::relaxed) > looked_ticks_ + help_ticks_;
  if (look && enter_as_thief(true)) return true;
  return enter_from_ring() || enter_as_thief(false);
}

void WorkerSeat::stop_offering() noexcept {
  if (!std::exchange(offering_, false)) return;
  pool_->end_offering(index_);
}

void WorkerSeat::leave_batch() noexcept {
  const uint64_t now = os::ticks();
  if (items_run_ != 0) {
    batch_.spent_ticks().fetch_add(now - running_since_);
    batch_.spent_items().fetch_add(items_run_);
  }
  if (exhausted_ && ring_at_ != kNotInRing) {
    uint64_t head = ring_at_;
    // COMMIT(pool.ring.pass): killed before: the next worker that enters the batch finds no unit
    // left, and passes it; after: the ring's next batch is the first.
    pool_->ring_head.compare_exchange(head, head + 1);
    SHOAL_KILL_POINT("pool.ring.pass");
    ask_for_more(ring_at_ + 1);
  }
  stop_offering();
  notify(now, true);
  batch_ = Batch{};
  // COMMIT(pool.leave.entered): killed before: resolving the death clears the word; after: it is
  // clear.
  seat_->entered.store(0);
  SHOAL_KILL_POINT("pool.leave.entered");
}

// Opens the batch to every worker; this worker goes on as one of them.
void WorkerSeat::open_batch() noexcept {
  if (!open_.add(entry_)) return;
  way_ = Way::shared;
  from_back_ = false;
  stop_offering();
  pool_->work_bell.notify_one();
}

bool WorkerSeat::hand_over() noexcept {
  if (way_ != Way::alone || (next_unit_ >= last_unit_ && begun_at_ == 0)) return true;
  open_batch();
  return way_ == Way::shared;
}

// Units run in the order in which they were submitted, as far as possible: a worker leaves a batch
// that other workers can enter as well when an older batch is open.
bool WorkerSeat::older_is_open() noexcept {
  if (way_ != Way::shared || !open_.maybe_any()) return false;
  const Entry oldest = open_.oldest();
  return oldest && oldest.generation() < entry_.generation();
}

// ---- Claiming -----------------------------------------------------------------------------------

std::optional<WorkerSeat::Claim> WorkerSeat::try_claim(uint32_t unit) noexcept {
  os::Atomic<uint64_t>& word = batch_.unit_words()[unit];
  uint64_t seen = word.load();
  for (;;) {
    Unit claimed = Unit::of(seen);
    if (claimed.state != UnitState::queued) return std::nullopt;
    const Claim claim{unit, claimed.attempt, claimed.progress};
    claimed.state = UnitState::claimed;
    claimed.worker = arena::short_number(member_.incarnation());
    // COMMIT(pool.unit.claim): killed before: queued, another worker claims it; after: lost, or
    // queued again by retries.
    if (!word.compare_exchange(seen, claimed.word())) continue;
    SHOAL_KILL_POINT("pool.unit.claim");
    return claim;
  }
}

std::optional<WorkerSeat::Claim> WorkerSeat::claim_from_back() noexcept {
  // Skips units that are not queued: units before them may have been queued again, after a death.
  while (next_unit_ > batch_.front().load() && next_unit_ <= batch_.units) {
    const uint32_t unit = --next_unit_;
    if (auto claim = try_claim(unit)) {
      batch_.back().store(unit);
      return claim;
    }
  }
  batch_.back().store(next_unit_);
  return std::nullopt;
}

std::optional<WorkerSeat::Claim> WorkerSeat::claim_from_front() noexcept {
  // A worker that enters a batch tries all its units, also those before `front`: a late store of
  // another worker may have moved that hint past a unit that was queued again.
  while (next_unit_ < last_unit_ || begun_at_ != 0) {
    if (next_unit_ == last_unit_) {
      next_unit_ = 0;
      last_unit_ = std::exchange(begun_at_, 0);
      continue;
    }
    const uint32_t unit = next_unit_++;
    if (auto claim = try_claim(unit)) {
      // order: relaxed; a hint
      batch_.front().store(next_unit_, os::relaxed);
      return claim;
    }
  }
  // order: relaxed; a hint
  batch_.front().store(batch_.units, os::relaxed);
  return std::nullopt;
}

bool WorkerSeat::any_queued(uint32_t from, uint32_t to) const noexcept {
  for (uint32_t i = from; i < to; ++i) {
    if (Unit::of(batch_.unit_words()[i].load()).state == UnitState::queued) return true;
  }
  return false;
}

// True if this worker, which is alone in the batch, has no unit to offer. `back` alone does not
// tell: a late store of a thief may have moved it over units that were queued again.
bool WorkerSeat::offers_nothing() const noexcept {
  return next_unit_ >= batch_.back().load() && !any_queued(next_unit_, last_unit_) &&
         !any_queued(0, begun_at_);
}

// This worker has found no unit in an open batch, or in one that another worker offers. Others
// shall not look there again, so it clears the hint that leads them there. If units were queued
// again, after a death, before that, others may rely on the hint by now. So this worker looks once
// more; it is still in the batch, so if it dies here the agent opens the batch. Units that are
// queued later do not depend on the cleared hint, since the client pushes their batch after that.
std::optional<WorkerSeat::Claim> WorkerSeat::claim_after_clearing() noexcept {
  for (;;) {
    if (way_ == Way::thief) {
      uint64_t offered = entry_.value;
      victim_->offers.compare_exchange(offered, 0);
    } else {
      open_.remove(entry_);
    }
    if (!any_queued(0, batch_.units)) return std::nullopt;
    (void)open_.add(entry_);  // no room: this worker runs the units
    start_at_front(Way::shared);
    if (auto claim = claim_from_front()) return claim;
  }
}

std::optional<WorkerSeat::Claim> WorkerSeat::claim() noexcept {
  if (older_is_open()) return std::nullopt;
  // order: relaxed; only this worker writes it
  if (from_back_ && os::ticks() > seat_->begun_ticks.load(os::relaxed) + help_ticks_) {
    start_at_front(Way::thief);  // the last unit was not a quick one
  }
  auto claim = std::exchange(first_, std::nullopt);
  if (!claim) claim = from_back_ ? claim_from_back() : claim_from_front();
  if (!claim && way_ != Way::alone && ring_at_ == kNotInRing) claim = claim_after_clearing();
  if (!claim) {
    exhausted_ = true;
    return std::nullopt;
  }
  if (way_ == Way::thief) add(seat_->steals, 1);
  if (offering_ && offers_nothing()) stop_offering();
  if (!looked_after_) look_after_rest();
  return claim;
}

// ---- Running ------------------------------------------------------------------------------------

void WorkerSeat::begin_unit(const Claim& claim, int64_t timeout_ns, uint64_t ticks) noexcept {
  // order: relaxed; the release store of serial below publishes them to the agent
  seat_->running.store(claim.unit, os::relaxed);
  seat_->begun_ticks.store(ticks, os::relaxed);  // order: relaxed; as in enter()
  if (timeout_ns > 0) {
    const int64_t now = os::monotonic_ns();
    seat_->started_ns.store(now, os::relaxed);                // order: relaxed; as above
    seat_->deadline_ns.store(now + timeout_ns, os::relaxed);  // order: relaxed; as above
  }
  // order: relaxed load, release store; only this worker writes serial; pairs with the acquire in
  // Supervisor
  seat_->serial.store(seat_->serial.load(os::relaxed) + 1, os::release);
}

void WorkerSeat::end_unit() noexcept {
  // order: relaxed load, release store; as in begin_unit
  seat_->serial.store(seat_->serial.load(os::relaxed) + 1, os::release);
  // order: relaxed; a deadline that is still set after its unit is ignored, since its serial has
  // passed
  if (seat_->deadline_ns.load(os::relaxed) != 0) seat_->deadline_ns.store(0);
}

StopReason WorkerSeat::stop_reason() const noexcept {
  // order: relaxed; only this worker writes serial
  const uint64_t serial = seat_->serial.load(os::relaxed);
  if ((serial & 1) == 0 || seat_->stop_serial.load() != serial) return StopReason::none;
  return static_cast<StopReason>(seat_->stop_reason.load());
}

// ---- Publishing ---------------------------------------------------------------------------------

void WorkerSeat::publish_item(const Claim& claim, uint32_t item, uint64_t result_word,
                              bool last) noexcept {
  const uint32_t index = batch_.first_item(claim.unit) + item;
  // order: relaxed; the release store of the unit word publishes it
  batch_.result_words()[index].store(result_word, os::relaxed);
  const Unit unit{last ? UnitState::done : UnitState::claimed, claim.attempt,
                  last ? 0 : arena::short_number(member_.incarnation()), item + 1};
  // COMMIT(pool.unit.publish): killed before: this item is lost; after: its result counts.
  // order: release; pairs with the client's acquire load in read_unit (bindings/pool/collect.cpp);
  // publishes the result word and record
  batch_.unit_words()[claim.unit].store(unit.word(), os::release);
  SHOAL_KILL_POINT("pool.unit.publish");
  unsent_ = true;
  ++items_run_;
  add(seat_->items_done, 1);
  if (last) add(seat_->units_done, 1);
}

void WorkerSeat::note_progress(const Claim& claim, uint32_t items) noexcept {
  const Unit unit{UnitState::claimed, claim.attempt, arena::short_number(member_.incarnation()),
                  items};
  // order: relaxed; read after this worker's death only
  batch_.unit_words()[claim.unit].store(unit.word(), os::relaxed);
}

void WorkerSeat::publish_whole(const Claim& claim, uint64_t result_word) noexcept {
  const uint32_t items = batch_.item_count(claim.unit);
  // order: relaxed; the release store of the unit word publishes it
  batch_.result_words()[batch_.first_item(claim.unit)].store(result_word, os::relaxed);
  const Unit unit{UnitState::done, claim.attempt, 0, items};
  // COMMIT(pool.unit.whole): killed before: all its items are lost; after: their results count.
  // order: release; pairs with the client's acquire load in read_whole (bindings/pool/collect.cpp);
  // publishes the result word and record
  batch_.unit_words()[claim.unit].store(unit.word(), os::release);
  SHOAL_KILL_POINT("pool.unit.whole");
  unsent_ = true;
  items_run_ += items;
  add(seat_->items_done, items);
  add(seat_->units_done, 1);
}

void WorkerSeat::publish_cancelled(const Claim& claim, uint32_t progress) noexcept {
  const Unit unit{UnitState::cancelled, claim.attempt, 0, progress};
  // COMMIT(pool.unit.cancelled): killed before: the client finds the claim and cancels it; after:
  // cancelled.
  batch_.unit_words()[claim.unit].store(unit.word());
  SHOAL_KILL_POINT("pool.unit.cancelled");
  unsent_ = true;
  add(seat_->units_done, 1);
}

void WorkerSeat::chain(Handle handle) noexcept {
  auto* block = member_.arena().at<ResultBlock>(handle);
  // COMMIT(pool.result.pending): killed before: this worker owns the block, which is reaped; after:
  // the same, and the client sees that the batch does not own the block that Seat.pending names.
  seat_->pending.store(handle);
  SHOAL_KILL_POINT("pool.result.pending");
  // COMMIT(pool.result.given): killed before: as above; after: the batch owns the block, and the
  // client frees it because Seat.pending names it.
  member_.give_to_block(handle, batch_handle_);
  SHOAL_KILL_POINT("pool.result.given");
  uint64_t head = batch_.results().load();
  do {
    block->next = head;
    // COMMIT(pool.result.chain): killed before: the client frees the block that Seat.pending names;
    // after: the block is freed with the batch.
  } while (!batch_.results().compare_exchange(head, handle));
  SHOAL_KILL_POINT("pool.result.chain");
  seat_->pending.store(0);
}

ResultBlock* WorkerSeat::block_for(uint64_t extent) {
  if (result_block_ != 0) {
    auto* block = member_.arena().at<ResultBlock>(result_block_);
    if (block->capacity - block->used.load() >= extent) return block;
  }
  const bool small = extent <= kSmallBlock / 4;
  const uint64_t wanted = sizeof(ResultBlock) + (small && batch_.units > 1 ? kSmallBlock : extent);
  const Handle handle = member_.allocate(wanted);
  auto* block = member_.arena().at<ResultBlock>(handle);
  new (block) ResultBlock{};
  block->magic = kResultMagic;
  block->maker = member_.incarnation();
  block->capacity = member_.arena().block_size(handle) - sizeof(ResultBlock);
  chain(handle);
  if (small) result_block_ = handle;  // the block of a large record has no room left for others
  return block;
}

uint64_t WorkerSeat::write_record(const std::byte* value, uint64_t size, const Handle* attachments,
                                  uint32_t attachment_count, uint32_t flags) {
  ResultRecord record{attachment_count, flags, size};
  ResultBlock* block = block_for(record.extent());
  const uint64_t used = block->used.load();
  auto* target = reinterpret_cast<ResultRecord*>(block->records() + used);
  *target = record;
  if (attachment_count > 0) {
    block->has_attachments = 1;
    std::memcpy(target->attachment_handles(), attachments, 8ull * attachment_count);
  }
  std::memcpy(target->value(), value, size);
  // COMMIT(pool.result.record): killed before: the record does not exist, and this worker owns its
  // attachments, which are reaped; after: freeing the block also frees those attachments that the
  // block owns.
  block->used.store(used + record.extent());
  SHOAL_KILL_POINT("pool.result.record");
  const Handle block_handle = member_.arena().handle_of(block);
  // COMMIT(pool.result.attachments): killed before: attachments that this worker still owns are
  // reaped; after: the block owns them.
  for (uint32_t i = 0; i < attachment_count; ++i) {
    add(seat_->bytes_out, member_.arena().block_size(attachments[i]));
    member_.give_to_block(attachments[i], block_handle);
  }
  SHOAL_KILL_POINT("pool.result.attachments");
  add(seat_->bytes_out, size);
  return offset_word(member_.arena().handle_of(block) + sizeof(ResultBlock) + used);
}

// ---- Telling the client -------------------------------------------------------------------------

void WorkerSeat::mark_dirty() noexcept {
  const uint32_t slot = entry_.slot();
  // COMMIT(pool.dirty.word): killed before or after: resolving the death marks the batch dirty.
  pool_->dirty[slot / 64].fetch_or(1ull << slot % 64);
  SHOAL_KILL_POINT("pool.dirty.word");
  // COMMIT(pool.dirty.summary): killed before or after: as above.
  pool_->dirty_summary.fetch_or(1ull << slot / 64);
  SHOAL_KILL_POINT("pool.dirty.summary");
  pool_->done_bell.advance_all();
}

void WorkerSeat::notify(uint64_t ticks, bool now) noexcept {
  if (unsent_ && (now || ticks - told_ticks_ > tell_ticks_)) {
    unsent_ = false;
    told_ticks_ = ticks;
    mark_dirty();
  }
  if (now || ticks - asked_ticks_ <= help_ticks_) return;
  asked_ticks_ = ticks;
  if (next_unit_ >= batch_.back().load()) return;
  if (way_ == Way::alone && ticks - entered_ticks_ > alone_ticks_) return open_batch();
  pool_->work_bell.notify_one();
}

}  // namespace shoal::pool
