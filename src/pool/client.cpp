// SPDX-License-Identifier: Apache-2.0
#include "pool/client.hpp"

#include <algorithm>
#include <bit>
#include <csignal>
#include <cstring>
#include <new>

#include "arena/size_class.hpp"
#include "os/clock.hpp"
#include "os/process.hpp"
#include "sync/wait.hpp"
#include "testing/kill_point.hpp"

namespace shoal::pool {

namespace {

constexpr int64_t kSpinNs = 40'000;  // docs/design/sync.md, Waiting
// dead workers' seats stay taken until their claims are resolved
constexpr uint32_t kSpareSeats = 8;
// Small batches are kept after their outcomes were read, until there is one for so many seats. Then
// one scan of all seats finds the batches that workers are still in, and the others are freed. In a
// pool of four workers that happens after each batch.
constexpr uint32_t kSeatsPerSmallBatch = 32;
constexpr uint64_t kSmallBatch = 1024;
// A small batch may have one block of small results, as WorkerSeat::write_record allocates it.
constexpr uint64_t kSmallResults = uint64_t{10} * 1024;

// Rounds small batches up to powers of two. Each size class of the arena that is used keeps spans
// of its own; with few sizes, the next batch reuses the memory that the last one freed.
uint64_t roomy(uint64_t extent) noexcept {
  return extent <= arena::kMaxSmall ? std::bit_ceil(extent) : extent;
}

PoolState* make_state(arena::Member& member, Handle handle, const PoolOptions& options,
                      uint32_t seats) {
  auto* state = member.arena().at<PoolState>(handle);
  std::memset(static_cast<void*>(state), 0, PoolState::bytes_for(seats));
  state->client = member.incarnation();
  state->seats = seats;
  state->target.store(options.workers);
  state->units_per_worker.store(options.units_per_worker);
  state->grace_ns.store(options.grace_ns);
  state->spinner_limit = options.spinners < kSpinners ? options.spinners : kSpinners;
  state->magic = kPoolMagic;
  return state;
}

uint32_t seats_for(const PoolOptions& options) noexcept {
  const uint32_t wanted = 2 * options.workers + kSpareSeats;
  return wanted < kMaxSeats ? wanted : kMaxSeats;
}

}  // namespace

ClientPool::ClientPool(arena::Member& member, const PoolOptions& options)
    : member_(member),
      handle_(member.allocate(PoolState::bytes_for(seats_for(options)))),
      seats_(seats_for(options)),
      state_(make_state(member, handle_, options, seats_)),
      spinner_limit_(state_->spinner_limit) {
  in_flight_.reserve(kBatchSlots);
  free_slots_.reserve(kBatchSlots);
  again_.reserve(kBatchSlots);
  entered_.reserve(seats_);
}

ClientPool::~ClientPool() {
  // The caller has made sure that all workers are gone: no other process touches the pool's memory.
  for (const InFlight& flight : in_flight_) {
    if (flight.batch) free_batch(flight);
  }
  for (const InFlight& retired : retired_) free_batch(retired);
  for (Handle block = state_->definitions.load(); block != 0;) {
    const Handle next = member_.arena().at<DefinitionBlock>(block)->next.load();
    member_.free(block);
    block = next;
  }
  for (const Handle block : functions_) member_.free(block);
  if (const Handle error = state_->failure.load()) member_.free_child(error, handle_);
  state_->magic = 0;
  member_.free(handle_);
}

// ---- Submitting ---------------------------------------------------------------------------------

uint64_t ClientPool::queued() const noexcept {
  return state_->ring_tail.load() - state_->ring_head.load();
}

Entry ClientPool::submit(const BatchParts& parts) {
  BatchShape shape{};
  shape.units = parts.units;
  shape.items = parts.items;
  shape.items_per_unit = parts.items_per_unit;
  shape.flags = parts.flags;
  shape.function = parts.function;
  shape.function_block = parts.function_block;
  shape.definitions = parts.definitions;
  shape.retries = parts.retries;
  shape.timeout_ns = parts.timeout_ns;
  shape.payload_size = parts.payload_size;
  shape.attachments = parts.attachment_count;
  const Handle handle = member_.allocate(roomy(shape.extent()));

  const uint32_t slot = take_slot();
  const Entry entry = Entry::make(generation_++, slot);
  auto* header = new (member_.arena().address(handle)) BatchHeader{};
  header->magic = kBatchMagic;
  header->entry = entry.value;
  header->shape = shape;
  const Batch batch(header, shape);
  batch.back().store(parts.units);
  // order: relaxed; the whole batch is published by the table word and the ring's tail below
  const uint64_t queued = Unit{UnitState::queued, 0, 0, 0}.word();
  for (uint32_t i = 0; i < parts.units; ++i) {
    batch.unit_words()[i].store(queued, os::relaxed);  // order: relaxed; as above
  }
  std::memcpy(static_cast<void*>(batch.argument_words()), parts.argument_words, 8ull * parts.units);
  if (parts.payload_size > 0) std::memcpy(batch.payload(), parts.payload, parts.payload_size);
  // COMMIT(pool.submit.written): killed before: the client owns the attachments, which are reaped;
  // after: the batch owns them, and they are freed with it.
  for (uint32_t i = 0; i < parts.attachment_count; ++i) {
    batch.attachment_handles()[i] = parts.attachments[i];
    member_.give_to_block(parts.attachments[i], handle);
  }
  SHOAL_KILL_POINT("pool.submit.written");
  in_flight_[slot] = {entry, batch, handle, parts.shared && parts.units > 1};
  ++in_flight_count_;
  // COMMIT(pool.submit.table): killed before or after: the pool dies with its client, which owns
  // the batch.
  state_->table[slot].store(table_word(entry, handle));
  SHOAL_KILL_POINT("pool.submit.table");
  push(in_flight_[slot]);
  return entry;
}

uint32_t ClientPool::take_slot() {
  if (free_slots_.empty()) {
    in_flight_.emplace_back();
    return static_cast<uint32_t>(in_flight_.size() - 1);
  }
  const uint32_t slot = free_slots_.back();
  free_slots_.pop_back();
  return slot;
}

void ClientPool::push(const InFlight& flight) noexcept {
  const uint64_t tail = state_->ring_tail.load();
  if (tail - state_->ring_head.load() >= kRingSlots) {
    // only duplicates after a death can fill the ring; take_dirty() tries again
    push_again_ = true;
    return;
  }
  state_->ring[tail % kRingSlots].store(ring_word(flight.entry, !flight.shared));
  // COMMIT(pool.ring.push): killed before: no worker sees the batch; after: it runs, or dies with
  // the client's workers.
  state_->ring_tail.store(tail + 1);
  SHOAL_KILL_POINT("pool.ring.push");
  // A spinner takes the batch, and wakes others if there is more. A spinner clears its place before
  // its last look at the ring, so the batch is not missed.
  if (!state_->anyone_spins(spinner_limit_)) state_->work_bell.notify_one();
}

void ClientPool::empty_ring(uint64_t end) noexcept {
  uint64_t head = state_->ring_head.load();
  // COMMIT(pool.ring.empty): killed before or after: the pool dies with its client.
  while (head < end && !state_->ring_head.compare_exchange(head, end)) {
  }
  SHOAL_KILL_POINT("pool.ring.empty");
}

void ClientPool::push_again() noexcept {
  push_again_ = false;
  again_.clear();
  for (uint32_t slot = 0; slot < in_flight_.size(); ++slot) {
    const Batch& batch = in_flight_[slot].batch;
    bool queued = false;
    for (uint32_t i = 0; batch && i < batch.units && !queued; ++i) {
      queued = Unit::of(batch.unit_words()[i].load()).state == UnitState::queued;
    }
    if (queued) again_.push_back(slot);
  }
  std::sort(again_.begin(), again_.end(), [this](uint32_t left, uint32_t right) {
    return in_flight_[left].entry.generation() < in_flight_[right].entry.generation();
  });
  // The batches are pushed before the old entries are removed, so that workers find them at any
  // time. An entry that is in the ring twice in between does no harm.
  const uint64_t old_end = state_->ring_tail.load();
  if (queued() + again_.size() > kRingSlots) empty_ring(old_end);
  for (const uint32_t slot : again_) {
    const Batch& batch = in_flight_[slot].batch;
    batch.front().store(0);
    batch.back().store(batch.units);
    push(in_flight_[slot]);
  }
  empty_ring(old_end);
}

// ---- Outcomes -----------------------------------------------------------------------------------

void ClientPool::take_dirty(std::vector<uint32_t>& slots) {
  uint64_t summary = state_->dirty_summary.load() == 0 ? 0 : state_->dirty_summary.exchange(0);
  for (; summary != 0; summary &= summary - 1) {
    const auto word = static_cast<uint32_t>(__builtin_ctzll(summary));
    for (uint64_t bits = state_->dirty[word].exchange(0); bits != 0; bits &= bits - 1) {
      const uint32_t slot = word * 64 + static_cast<uint32_t>(__builtin_ctzll(bits));
      if (slot < in_flight_.size() && in_flight_[slot].batch) slots.push_back(slot);
    }
  }
  if (must_sweep_) sweep_retired();
  if (push_again_) push_again();
}

void ClientPool::mark_dirty(uint32_t slot) noexcept {
  state_->dirty[slot / 64].fetch_or(1ull << slot % 64);
  state_->dirty_summary.fetch_or(1ull << slot / 64);
}

void ClientPool::retire(uint32_t slot) {
  InFlight& flight = in_flight_[slot];
  // seq_cst; pairs with the store of Seat.entered in WorkerSeat::enter
  // COMMIT(pool.retire.table): killed before or after: the pool dies with its client, which owns
  // the batch.
  state_->table[slot].store(0);
  SHOAL_KILL_POINT("pool.retire.table");
  retired_.push_back(flight);
  must_sweep_ = must_sweep_ || retired_.size() > seats_ / kSeatsPerSmallBatch || !is_small(flight);
  flight = {};
  --in_flight_count_;
  free_slots_.push_back(slot);
  if (must_sweep_) sweep_retired();
}

bool ClientPool::is_small(const InFlight& flight) const noexcept {
  const Batch& batch = flight.batch;
  if (batch.attachments != 0 || batch.extent() > kSmallBatch) return false;
  const Handle handle = batch.results().load();
  if (handle == 0) return true;
  const ResultBlock* results = result_block(handle, flight.handle);
  return results != nullptr && results->next == 0 && results->has_attachments == 0 &&
         member_.arena().block_size(handle) <= kSmallResults;
}

void ClientPool::sweep_retired() {
  entered_.clear();
  for (uint32_t i = 0; i < seats_; ++i) {
    if (const Entry entry{state_->seat(i)->entered.load()}) entered_.push_back(entry);
  }
  std::erase_if(retired_, [this](const InFlight& retired) {
    if (std::find(entered_.begin(), entered_.end(), retired.entry) != entered_.end()) return false;
    free_batch(retired);
    return true;
  });
  must_sweep_ = !retired_.empty();
}

// The result block with that handle, or nullptr when shared memory is corrupt: the blocks behind it
// in the chain stay allocated until the session ends.
ResultBlock* ClientPool::result_block(Handle block, Handle batch) const noexcept {
  const arena::Arena& arena = member_.arena();
  if (!arena.contains(block, sizeof(ResultBlock)) ||
      arena.owner_word(block).load() != arena::owner_block(batch)) {
    return nullptr;
  }
  return arena.at<ResultBlock>(block);
}

void ClientPool::free_batch(const InFlight& flight) noexcept {
  const Batch& batch = flight.batch;
  Handle next = 0;
  for (Handle handle = batch.results().load(); handle != 0; handle = next) {
    ResultBlock* block = result_block(handle, flight.handle);
    if (block == nullptr) break;
    next = block->next;
    if (block->has_attachments != 0) free_attachments(*block, handle);
    member_.free_child(handle, flight.handle);
  }
  for (uint32_t i = 0; i < batch.attachments; ++i) {
    member_.free_child(batch.attachment_handles()[i], flight.handle);
  }
  member_.arena().at<BatchHeader>(flight.handle)->magic = 0;
  member_.free(flight.handle);
}

void ClientPool::free_attachments(ResultBlock& block, Handle handle) noexcept {
  const uint64_t room = member_.arena().block_size(handle) - sizeof(ResultBlock);
  const uint64_t used = std::min(block.used.load(), room);
  for (uint64_t at = 0; at + sizeof(ResultRecord) <= used;) {
    auto* place = reinterpret_cast<ResultRecord*>(block.records() + at);
    const ResultRecord record = *place;
    if (!record.fits(used - at)) return;  // corrupt
    for (uint32_t i = 0; i < record.attachments; ++i) {
      member_.free_child(place->attachment_handles()[i], handle);
    }
    at += record.extent();
  }
}

bool ClientPool::cancel_queued(uint32_t slot, uint32_t unit) noexcept {
  os::Atomic<uint64_t>& word = in_flight_[slot].batch.unit_words()[unit];
  uint64_t seen = word.load();
  while (Unit::of(seen).state == UnitState::queued) {
    Unit cancelled = Unit::of(seen);
    cancelled.state = UnitState::cancelled;
    if (word.compare_exchange(seen, cancelled.word())) return true;
  }
  return false;
}

bool ClientPool::is_claimed(uint32_t slot, uint32_t unit) const noexcept {
  const Unit seen = Unit::of(in_flight_[slot].batch.unit_words()[unit].load());
  return seen.state == UnitState::claimed;
}

bool ClientPool::request_stop(uint32_t slot, uint32_t unit, StopReason reason) noexcept {
  const Unit seen = Unit::of(in_flight_[slot].batch.unit_words()[unit].load());
  if (seen.state != UnitState::claimed) return false;
  for (uint32_t i = 0; i < seats_; ++i) {
    Seat& seat = *state_->seat(i);
    if (life_worker(seat.life.load()) != seen.worker) continue;
    seat.stop_entry.store(0);  // an earlier request was for a unit that has ended
    seat.stop_unit.store(uint64_t{static_cast<uint32_t>(reason)} << 32 | unit);
    seat.stop_entry.store(in_flight_[slot].entry.value);
    return true;
  }
  return true;
}

// ---- Deaths -------------------------------------------------------------------------------------

bool ClientPool::has_deaths() const noexcept { return state_->death_epoch.load() != seen_deaths_; }

bool ClientPool::resolve_deaths(const LostItem& lost) {
  const uint32_t epoch = state_->death_epoch.load();
  if (epoch == seen_deaths_) return false;
  seen_deaths_ = epoch;
  for (uint32_t i = 0; i < seats_; ++i) {
    if (life_of(state_->seat(i)->life.load()) == Life::dead) resolve_seat(*state_->seat(i), lost);
  }
  push_again();
  state_->work_bell.notify_all();
  return true;
}

void ClientPool::resolve_seat(Seat& seat, const LostItem& lost) {
  const Incarnation worker = life_worker(seat.life.load());
  const uint64_t serial = seat.serial.load();
  Death death{
      seat.pid.load(),  seat.exit_status.load(), static_cast<ExitKind>(seat.exit_kind.load()),
      StopReason::none, seat.peak_memory.load(), seat.memory_limit.load() != 0};
  if ((serial & 1) != 0 && seat.stop_serial.load() == serial) {
    death.stopped = static_cast<StopReason>(seat.stop_reason.load());
  }
  resolve_pending(seat);
  bool is_unforeseen = death.kind != ExitKind::planned;
  if (worker != 0) {
    for (uint32_t slot = 0; slot < in_flight_.size(); ++slot) {
      const Batch& batch = in_flight_[slot].batch;
      if (!batch) continue;
      for (uint32_t unit = 0; unit < batch.units; ++unit) {
        const Unit seen = Unit::of(batch.unit_words()[unit].load());
        if (seen.state == UnitState::claimed && seen.worker == arena::short_number(worker)) {
          Death of_unit = death;
          if (in_flight_[slot].entry.value == seat.stop_entry.load() &&
              (seat.stop_unit.load() & UINT32_MAX) == unit) {  // the agent had not seen the request
            of_unit.stopped = static_cast<StopReason>(seat.stop_unit.load() >> 32);
          }
          is_unforeseen &= resolve_unit(slot, unit, of_unit, lost);
        }
      }
      // The worker may have died after it stored DONE and before it set the dirty bit.
      mark_dirty(slot);
    }
  }
  if (is_unforeseen) unforeseen_.push_back(death);
  seat.forget_worker();
  // COMMIT(pool.resolve.seat): killed before or after: the pool dies with its client. After the
  // store the agent may give the seat to the next worker.
  seat.life.store(life_word(Life::empty, 0));
  SHOAL_KILL_POINT("pool.resolve.seat");
}

void ClientPool::resolve_pending(Seat& seat) {
  const Handle pending = seat.pending.load();
  const Entry entry{seat.entered.load()};
  seat.pending.store(0);
  if (pending == 0 || !entry) return;
  const InFlight* flight = nullptr;
  if (entry.slot() < in_flight_.size() && in_flight_[entry.slot()].entry == entry) {
    flight = &in_flight_[entry.slot()];
  }
  for (const InFlight& retired : retired_) {
    if (retired.entry == entry) flight = &retired;
  }
  if (flight == nullptr) return;
  Handle chained = flight->batch.results().load();
  while (chained != 0 && chained != pending) {
    const ResultBlock* block = result_block(chained, flight->handle);
    chained = block == nullptr ? 0 : block->next;
  }
  if (chained == pending) return;
  // If the batch never owned the pending block, the block was reaped, and its memory may already be
  // a block that another worker is chaining to the same batch. `maker` tells the two apart, since
  // it is written before the owner word.
  const ResultBlock* block = result_block(pending, flight->handle);
  if (block == nullptr || block->maker != life_worker(seat.life.load())) return;
  member_.free_child(pending, flight->handle);
}

bool ClientPool::resolve_unit(uint32_t slot, uint32_t index, const Death& death,
                              const LostItem& lost) {
  const Batch& batch = in_flight_[slot].batch;
  Unit unit = Unit::of(batch.unit_words()[index].load());
  const uint32_t items = batch.item_count(index);
  const bool whole = (batch.flags & kWholeUnits) != 0;
  const uint32_t item = unit.progress;
  // In a whole unit all items may have ended while the unit is still CLAIMED. In other units the
  // last item is published with DONE, so this value is corrupt.
  if (item >= items && (!whole || item != items)) return true;
  unit.worker = 0;
  unit.state = UnitState::queued;
  bool is_over = false;
  const bool may_retry = death.stopped == StopReason::none && unit.attempt < batch.retries &&
                         unit.attempt < kMaxAttempts;
  if (death.stopped == StopReason::cancel) {
    unit.state = UnitState::cancelled;
  } else if (death.kind == ExitKind::planned) {
    // The worker left between claiming and running the unit: the claim is undone.
    if (whole) unit.progress = 0;
  } else if (may_retry) {
    unit.attempt += 1;
    if (whole) unit.progress = 0;
  } else {
    const bool timed_out = death.stopped == StopReason::timeout;
    batch.result_words()[batch.first_item(index) + (whole ? 0 : item)].store(
        timed_out ? kTimedOutItem : kLostItem);
    unit.progress = whole ? items : item + 1;
    unit.attempt = 0;
    if (unit.progress == items) unit.state = UnitState::done;
    is_over = true;
  }
  // COMMIT(pool.resolve.unit): killed before or after: the pool dies with its client.
  batch.unit_words()[index].store(unit.word());
  SHOAL_KILL_POINT("pool.resolve.unit");
  const bool is_lost = is_over && death.stopped == StopReason::none;
  if (is_lost) lost(slot, index, std::min(item, items - 1), death);
  return is_lost;
}

bool ClientPool::bury_workers_of_dead_agent() {
  bool all_gone = true;
  for (uint32_t i = 0; i < seats_; ++i) {
    Seat& seat = *state_->seat(i);
    const uint64_t life = seat.life.load();
    if (life_of(life) == Life::empty) continue;
    if (life_of(life) == Life::dead) {  // the agent may have died before it raised death_epoch
      state_->death_epoch.fetch_add(1);
      continue;
    }
    const Incarnation worker = life_worker(life);
    if (worker != 0 && arena::member_alive(member_.arena(), worker)) {
      all_gone = false;
      continue;
    }
    if (worker != 0) arena::reap(member_.arena(), member_, worker);
    state_->end_offering(i);
    seat.exit_status.store(SIGKILL);  // what the agent's death sends; the true status is unknown
    seat.life.store(life_word(Life::dead, worker));
    state_->death_epoch.fetch_add(1);
  }
  return all_gone;
}

// ---- Waiting ------------------------------------------------------------------------------------

os::Wake ClientPool::wait(uint32_t seen, int64_t deadline_ns, bool may_spin) noexcept {
  if (may_spin) {
    const int64_t spin_end = os::monotonic_ns() + kSpinNs;
    const int64_t end = deadline_ns >= 0 && deadline_ns < spin_end ? deadline_ns : spin_end;
    do {
      for (int i = 0; i < 16; ++i) {
        if (listen() != seen) return os::Wake::changed;
        os::cpu_relax();
      }
      sync::yield_processor();
    } while (os::monotonic_ns() < end);
  }
  if (!state_->done_bell.announce(&seen)) return os::Wake::changed;
  const os::Wake wake = os::futex_wait(&state_->done_bell.word(), seen, deadline_ns);
  if (wake == os::Wake::timed_out) {
    state_->wake_for_waiting_units(seats_);
    mark_entered_dirty();
  }
  return wake;
}

// Any thread, without the caller's lock: reads and writes shared words only.
void ClientPool::mark_entered_dirty() noexcept {
  for (uint32_t i = 0; i < seats_; ++i) {
    if (const Entry entry{state_->seat(i)->entered.load()}) mark_dirty(entry.slot());
  }
}

void ClientPool::wait_for_hunger(bool at_once, int64_t deadline_ns) noexcept {
  const uint32_t low = state_->target.load() + 1;
  state_->low_water.store(low);
  const uint32_t seen = state_->hunger_bell.prepare();
  const bool taken = state_->ring_head.load() != fed_head_.load();
  const bool hungry = (at_once || taken) && queued() < low;
  const bool called = (seen | 1) != (fed_bell_.load() | 1);
  if (!hungry && !called) {
    (void)os::futex_wait(&state_->hunger_bell.word(), seen, deadline_ns);
  }
  fed_bell_.store(state_->hunger_bell.listen());
  fed_head_.store(state_->ring_head.load());
}

// ---- Functions, definitions, the end ------------------------------------------------------------

Handle ClientPool::store_function(const std::byte* bytes, uint64_t size) {
  const Handle handle = member_.allocate(sizeof(FunctionBlock) + size);
  auto* block = new (member_.arena().address(handle)) FunctionBlock{};
  block->size = size;
  std::memcpy(block->bytes(), bytes, size);
  functions_.insert(handle);
  return handle;
}

void ClientPool::free_function(Handle block) noexcept {
  if (functions_.erase(block) != 0) member_.free(block);
}

void ClientPool::append_definition(const std::byte* bytes, uint64_t size) {
  const Handle handle = member_.allocate(sizeof(DefinitionBlock) + size);
  auto* block = new (member_.arena().address(handle)) DefinitionBlock{};
  block->size = size;
  std::memcpy(block->bytes(), bytes, size);
  if (last_definition_ == 0) {
    state_->definitions.store(handle);
  } else {
    member_.arena().at<DefinitionBlock>(last_definition_)->next.store(handle);
  }
  last_definition_ = handle;
  state_->definition_count.fetch_add(1);
}

void ClientPool::set_phase(Phase phase) noexcept {
  state_->phase.store(static_cast<uint32_t>(phase));
  state_->work_bell.notify_all();
}

uint32_t ClientPool::live_workers() const noexcept {
  uint32_t count = 0;
  for (uint32_t i = 0; i < seats_; ++i) {
    const Life life = life_of(state_->seat(i)->life.load());
    count += life == Life::starting || life == Life::ready ? 1 : 0;
  }
  return count;
}

}  // namespace shoal::pool
