// SPDX-License-Identifier: Apache-2.0
//
// The client's side of a pool: submitting batches, learning of outcomes, resolving deaths, freeing
// memory.
//
// Words. A *batch* is what one submit() sends: one or more *units*, each of one or more *items*
// (calls). A worker takes (claims) whole units. A batch in flight has a *slot*, a place in a table
// in shared memory; a worker has a *seat*. The *agent* is the process or thread that starts workers
// and stops them. The *client* is the process that made the pool.
//
// One ClientPool per pool, in the client. Not thread safe: the caller holds one process-local lock
// around every call, except wait() and wait_for_hunger(): these two block, and many threads may be
// in them at once. Does not use Python. If the client is killed, the kernel kills its workers, and
// the process that reaps the client frees all blocks that this class has allocated.
// Design: docs/design/pool.md
#pragma once

#include <functional>
#include <unordered_set>
#include <utility>
#include <vector>

#include "pool/batch.hpp"
#include "pool/layout.hpp"

namespace shoal::pool {

struct PoolOptions {
  uint32_t workers = 1;
  uint32_t units_per_worker = 0;  // a worker leaves after this many units; 0 = never
  int64_t grace_ns = 0;           // between interrupting a unit and killing its worker
  uint32_t spinners = 0;          // number of workers that may spin for work at the same time
};

// The contents of a batch. Words are inline codec words or offset_word(offset into payload).
struct BatchParts {
  const uint64_t* argument_words = nullptr;
  uint32_t units = 0;
  uint32_t items = 0;
  uint32_t items_per_unit = 1;  // at most kMaxItemsPerUnit
  uint32_t flags = 0;
  uint64_t function = 0;
  Handle function_block = 0;
  uint32_t definitions = 0;
  uint32_t retries = 0;
  int64_t timeout_ns = 0;
  const std::byte* payload = nullptr;
  uint64_t payload_size = 0;
  const Handle* attachments = nullptr;  // blocks of the caller; submit() gives them to the batch
  uint32_t attachment_count = 0;
  // true: the units may take long, so each free worker takes the next one. false: one worker takes
  // them all, and others help only when it is slow.
  bool shared = false;
};

class ClientPool {
 public:
  ClientPool(arena::Member& member, const PoolOptions& options);
  ~ClientPool();
  ClientPool(const ClientPool&) = delete;
  ClientPool& operator=(const ClientPool&) = delete;

  [[nodiscard]] Handle handle() const noexcept { return handle_; }
  [[nodiscard]] PoolState& state() const noexcept { return *state_; }
  [[nodiscard]] uint32_t seats() const noexcept { return seats_; }
  [[nodiscard]] arena::Member& member() const noexcept { return member_; }

  // ---- Submitting
  [[nodiscard]] bool has_room() const noexcept {
    return !free_slots_.empty() || in_flight_.size() < kBatchSlots;
  }
  // Copies the parts into one block and pushes it. has_room() must be true. Throws MemoryExhausted:
  // then the attachments are still the caller's.
  Entry submit(const BatchParts& parts);
  // Batches pushed and not yet popped by a worker.
  [[nodiscard]] uint64_t queued() const noexcept;

  // ---- Outcomes
  // Appends the slots whose outcomes have changed since the last call. Each change is reported to
  // one caller only.
  void take_dirty(std::vector<uint32_t>& slots);
  // The batch in flight in the slot; an empty Batch, which converts to false, if there is none.
  [[nodiscard]] const Batch& batch(uint32_t slot) const noexcept { return in_flight_[slot].batch; }
  [[nodiscard]] Handle batch_handle(uint32_t slot) const noexcept {
    return in_flight_[slot].handle;
  }
  [[nodiscard]] bool anything_in_flight() const noexcept { return in_flight_count_ != 0; }
  [[nodiscard]] uint32_t in_flight() const noexcept { return in_flight_count_; }
  // For a caller that has itself changed an outcome in the slot: the next take_dirty() returns the
  // slot.
  void mark_dirty(uint32_t slot) noexcept;
  // To be called when all outcomes of the batch have been read: frees it once no worker can access
  // it. In a large pool a small batch is freed later, together with other small batches.
  void retire(uint32_t slot);

  // Cancels a queued unit. False when the unit is not queued (any more).
  bool cancel_queued(uint32_t slot, uint32_t unit) noexcept;
  // Whether a worker has taken the unit and not finished it.
  [[nodiscard]] bool is_claimed(uint32_t slot, uint32_t unit) const noexcept;
  // Asks the agent to stop the task if a worker runs the unit now. True when a worker had claimed
  // the unit; the agent finds out whether it still runs.
  bool request_stop(uint32_t slot, uint32_t unit, StopReason reason) noexcept;

  // ---- Deaths
  struct Death {  // the known facts about a dead worker
    uint32_t pid = 0;
    uint32_t status = 0;
    ExitKind kind = ExitKind::unknown;
    StopReason stopped = StopReason::none;
    uint64_t peak_memory = 0;
    bool memory_limit = false;
  };
  // For each unit that a dead worker had claimed: the item that it ran is queued again if it has
  // retries left; else it gets the result word kLostItem and `lost` is called for it, or it gets
  // kTimedOutItem if its worker was killed for its time limit. The items after it are queued again.
  // A unit that was to be cancelled becomes CANCELLED. The slots are marked dirty, and batches with
  // queued units are pushed once more. True when there was a death to resolve.
  using LostItem = std::function<void(uint32_t slot, uint32_t unit, uint32_t item, const Death&)>;
  bool resolve_deaths(const LostItem& lost);
  // The workers found dead since the last call, except those that left by plan, those that were
  // killed to stop their unit, and those whose unit is run again.
  std::vector<Death> take_unforeseen() noexcept { return std::exchange(unforeseen_, {}); }
  [[nodiscard]] bool has_deaths() const noexcept;
  // After the agent has died (the kernel then kills its workers), call this until it returns true.
  // Marks as DEAD each seat whose process has ended; true when no worker is alive.
  bool bury_workers_of_dead_agent();

  // ---- Waiting for news. A caller that wants to sleep until an outcome changes calls listen(),
  // then take_dirty(), and if that gave nothing, wait() with what listen() returned: no change is
  // missed.
  [[nodiscard]] uint32_t listen() const noexcept { return state_->done_bell.listen(); }
  // After a timeout, take_dirty() also returns the batches that workers are in. A worker reports
  // its results with a delay, and a worker that runs a long unit or is stopped has not reported the
  // results before that unit.
  os::Wake wait(uint32_t seen, int64_t deadline_ns, bool may_spin) noexcept;
  void ring_clients() noexcept { state_->done_bell.advance_all(); }
  // Waits until fewer batches are queued than low_water, so that workers may run out of them, or
  // until ring_feeders() is called. Like wait(), many threads may call it. If the queue is short
  // already: with `at_once` it returns immediately, without only if a worker has taken a batch
  // since this function last returned.
  void wait_for_hunger(bool at_once, int64_t deadline_ns) noexcept;
  void ring_feeders() noexcept { state_->hunger_bell.advance_all(); }

  // ---- Functions and definitions
  // The block stays until free_function(), or until the pool ends.
  Handle store_function(const std::byte* bytes, uint64_t size);
  void free_function(Handle block) noexcept;
  void append_definition(const std::byte* bytes, uint64_t size);

  // ---- The end
  void set_phase(Phase phase) noexcept;
  [[nodiscard]] uint32_t live_workers() const noexcept;

 private:
  struct InFlight {
    Entry entry;
    Batch batch;
    Handle handle = 0;
    bool shared = false;
  };

  [[nodiscard]] uint32_t take_slot();
  void push(const InFlight& flight) noexcept;
  // Pushes all batches that have queued units once more, in the order in which they were submitted.
  void push_again() noexcept;
  // Removes the ring's entries before `end`.
  void empty_ring(uint64_t end) noexcept;
  void mark_entered_dirty() noexcept;
  [[nodiscard]] bool is_small(const InFlight& flight) const noexcept;
  void sweep_retired();
  void free_batch(const InFlight& flight) noexcept;
  [[nodiscard]] ResultBlock* result_block(Handle block, Handle batch) const noexcept;
  void free_attachments(ResultBlock& block, Handle handle) noexcept;
  void resolve_seat(Seat& seat, const LostItem& lost);
  void resolve_pending(Seat& seat);
  // True when the item that the dead worker ran is lost.
  bool resolve_unit(uint32_t slot, uint32_t index, const Death& death, const LostItem& lost);

  arena::Member& member_;
  Handle handle_ = 0;
  uint32_t seats_;  // from the constructor; PoolState has a copy for other processes
  PoolState* state_ = nullptr;
  uint32_t spinner_limit_;
  // in_flight_ is indexed by slot and grows when a slot is used for the first time. Creating all
  // entries in the constructor would touch 200 KB in each pool, which each fork of the process
  // would copy. The constructor only reserves room for all, so in_flight_ and free_slots_ never
  // move or allocate later.
  std::vector<InFlight> in_flight_;
  std::vector<uint32_t> free_slots_;
  std::vector<InFlight> retired_;  // outcomes are read, but a worker may still touch the batch
  bool must_sweep_ = false;        // some retired batches are to be freed as soon as possible
  std::vector<Entry> entered_;     // buffer of sweep_retired()
  std::vector<uint32_t> again_;    // buffer of push_again(), which must not allocate
  uint32_t in_flight_count_ = 0;
  // ring_head and the word of hunger_bell when wait_for_hunger() last returned
  os::Atomic<uint64_t> fed_head_;
  os::Atomic<uint32_t> fed_bell_;
  uint64_t generation_ = 1;
  uint32_t seen_deaths_ = 0;
  bool push_again_ = false;
  std::unordered_set<Handle> functions_;  // blocks of store_function()
  Handle last_definition_ = 0;
  std::vector<Death> unforeseen_;
};

}  // namespace shoal::pool
