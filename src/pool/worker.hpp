// SPDX-License-Identifier: Apache-2.0
//
// A worker's side of a pool: finding units, claiming them, publishing their results.
//
// One WorkerSeat per worker process, used by one thread. Only wait() blocks. Does not use Python.
//
// What other processes see if this worker is killed:
//   1. before a claim's compare-exchange: the unit is QUEUED, and its batch is in the ring,
//      or open, or offered by a seat;
//   2. while the unit word is CLAIMED(me): items below `progress` have results; item `progress` is
//      lost; the items after it never began, and are queued again;
//   3. after the DONE store but before the dirty bit: the client scans all batches in flight after
//      a death;
//   4. while chaining a result block: Seat.pending names it, and the client frees it if it is not
//      in the chain.
//
// Units that the dead worker had not claimed are open to all workers (open_batches.hpp) as soon as
// the agent has recorded the death.
//
// While a worker is idle, no unit waits for longer than a wake-up takes, or than kLookNs if the
// lookout has to find it: see look_after_rest().
// Design: docs/design/pool.md
#pragma once

#include <optional>

#include "os/clock.hpp"
#include "pool/batch.hpp"
#include "pool/layout.hpp"
#include "pool/open_batches.hpp"

namespace shoal::pool {

class WorkerSeat {
 public:
  enum class Wait { work, leave, interrupted };

  // Takes the seat, which stays STARTING: writes this process's pid and incarnation. The agent
  // must have given the seat to this process.
  WorkerSeat(arena::Member& member, Handle pool, uint32_t seat);
  WorkerSeat(const WorkerSeat&) = delete;
  WorkerSeat& operator=(const WorkerSeat&) = delete;

  // Begins to take work (STARTING -> READY). To be called after the worker's initializer has run.
  void ready() noexcept;

  // Waits until there may be work: spins if a spinner's place is free, then sleeps.
  Wait wait() noexcept;

  // Enters the oldest batch with something to do: an open one, the ring's first, or one that
  // another worker is busy with (`thief`). False: nothing to do.
  bool enter_next() noexcept;
  // To be called before the first claim by a worker that needs long until then, because the batch
  // has something new to decode: wakes a sleeper for what waits meanwhile.
  void prepare() noexcept { wake_for_rest(); }
  // Leaves the entered batch, and tells the client about its outcomes.
  void leave_batch() noexcept;
  // Called by a worker that will claim no more units. True when other workers can take the rest of
  // the batch, so this worker may leave.
  bool hand_over() noexcept;
  [[nodiscard]] bool is_thief() const noexcept { return way_ == Way::thief; }
  [[nodiscard]] const Batch& batch() const noexcept { return batch_; }
  [[nodiscard]] Handle batch_handle() const noexcept { return batch_handle_; }

  struct Claim {
    uint32_t unit;
    uint32_t attempt;
    uint32_t progress;  // items that an earlier attempt has published
  };
  // Claims the next unit of the entered batch: from the front, or, as a thief in a batch of quick
  // units, from the back, so that the two workers do not compete for each unit. Empty: the caller
  // must leave the batch.
  std::optional<Claim> claim() noexcept;

  // Brackets user code: sets what the agent needs to enforce time limits and cancellation. `ticks`
  // is the current time.
  void begin_unit(const Claim& claim, int64_t timeout_ns, uint64_t ticks = os::ticks()) noexcept;
  void end_unit() noexcept;
  // The reason why the running unit must stop, or none.
  [[nodiscard]] StopReason stop_reason() const noexcept;

  // Publishes item `item` of the claimed unit: an inline word, or a record made by write_record.
  void publish_item(const Claim& claim, uint32_t item, uint64_t result_word, bool last) noexcept;
  // Publishes a whole unit (kWholeUnits): it has ended, and has one result word for all its items.
  void publish_whole(const Claim& claim, uint64_t result_word) noexcept;
  // Notes that `items` items of the claimed whole unit have ended. The client reads this only after
  // this worker's death, to report which item was running.
  void note_progress(const Claim& claim, uint32_t items) noexcept;
  // Ends a unit that was cancelled while it ran: items from `progress` on have no result.
  void publish_cancelled(const Claim& claim, uint32_t progress) noexcept;

  // Writes a result record into a block chained to the batch and returns its result word. The owner
  // of `attachments` is MEMBER(me) before and the block afterwards. Throws MemoryExhausted (nothing
  // published, attachments still this worker's).
  uint64_t write_record(const std::byte* value, uint64_t size, const Handle* attachments,
                        uint32_t attachment_count, uint32_t flags);

  // Tells the client about published results if it has not been told for a while (or `now`), and
  // asks for help when this batch takes long while other workers sleep. `ticks` is the current
  // time.
  void notify(uint64_t ticks, bool now = false) noexcept;

  [[nodiscard]] PoolState& pool() const noexcept { return *pool_; }
  [[nodiscard]] Seat& seat() const noexcept { return *seat_; }
  [[nodiscard]] arena::Member& member() const noexcept { return member_; }
  [[nodiscard]] bool should_leave() const noexcept;

 private:
  // How the entered batch is shared. alone: this worker took it from the ring, and other workers
  // enter it as thieves. shared: it is at the ring's head, or open, and any worker takes its next
  // unit. thief: another worker has it alone, and this worker helps.
  enum class Way { alone, shared, thief };
  static constexpr uint64_t kNotInRing = UINT64_MAX;

  bool enter(Entry entry) noexcept;
  bool enter_open() noexcept;
  bool enter_from_ring() noexcept;
  void offer_or_claim() noexcept;
  void withdraw() noexcept;
  bool enter_as_thief(bool only_stuck) noexcept;
  bool steal_from(Seat& victim, Entry entry, bool stuck) noexcept;
  void start_at_front(Way way) noexcept;
  [[nodiscard]] bool older_is_open() noexcept;
  void open_batch() noexcept;
  void stop_offering() noexcept;
  bool may_have_work() const noexcept;
  bool somebody_looks() const noexcept;
  void look_after_rest() noexcept;
  void wake_for_rest() noexcept;
  void ask_for_more(uint64_t head) noexcept;
  bool spin() noexcept;
  os::Atomic<uint64_t>* take_spinner_place(uint64_t now) noexcept;
  bool become_lookout() noexcept;
  os::Wake sleep_unless_work(int64_t deadline_ns) noexcept;
  os::Wake look_out() noexcept;
  os::Wake sleep_until_work() noexcept;
  std::optional<Claim> try_claim(uint32_t unit) noexcept;
  std::optional<Claim> claim_from_back() noexcept;
  std::optional<Claim> claim_from_front() noexcept;
  std::optional<Claim> claim_after_clearing() noexcept;
  [[nodiscard]] bool any_queued(uint32_t from, uint32_t to) const noexcept;
  [[nodiscard]] bool offers_nothing() const noexcept;
  ResultBlock* block_for(uint64_t extent);
  void chain(Handle handle) noexcept;
  void mark_dirty() noexcept;

  arena::Member& member_;
  PoolState* pool_;
  uint32_t seats_;
  uint32_t spinner_limit_;
  uint32_t index_;
  Seat* seat_;
  OpenBatches open_;
  Batch batch_;  // false when none is entered
  Handle batch_handle_ = 0;
  Entry entry_;
  Way way_ = Way::alone;
  bool from_back_ = false;  // a thief in a batch of quick units
  bool exhausted_ = false;  // claim() has found no unit left
  bool looked_after_ = false;
  bool offering_ = false;          // this seat's bit in PoolState.offering
  std::optional<Claim> first_;     // claimed before the batch left the ring
  bool unsent_ = false;            // results published since the client was told
  Seat* victim_ = nullptr;         // thief: the worker whose batch this is
  uint64_t ring_at_ = kNotInRing;  // shared: the ring's head that named the batch
  uint32_t next_unit_ = 0;         // where claim() looks next
  uint32_t last_unit_ = 0;         // where it stops, when it claims from the front
  uint32_t begun_at_ = 0;          // units before it have not been tried yet
  uint64_t items_run_ = 0;         // in the entered batch
  uint64_t entered_ticks_ = 0;
  uint64_t running_since_ = 0;  // the first claim in this batch
  uint64_t told_ticks_ = 0;
  uint64_t asked_ticks_ = 0;
  Handle result_block_ = 0;    // current block of the entered batch with room left
  uint32_t steal_from_ = 0;    // seat to look at first
  uint64_t looked_ticks_ = 0;  // when this worker last looked for stuck workers
  uint64_t spin_ticks_;        // the constants of worker.cpp in ticks
  uint64_t rely_ticks_;
  uint64_t tell_ticks_;
  uint64_t help_ticks_;
  uint64_t alone_ticks_;
  uint64_t look_ticks_;
};

}  // namespace shoal::pool
