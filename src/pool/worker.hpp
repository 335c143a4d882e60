// SPDX-License-Identifier: Apache-2.0
//
// A worker's side of a pool: finding units, claiming them, publishing their results.
//
// One WorkerSeat per worker process, used by one thread. Only wait() blocks. Nothing here knows
// Python.
//
// What others see if this worker is killed:
//   1. before a claim's compare-exchange: the unit is QUEUED; the client pushes its batch again;
//   2. while the unit word is CLAIMED(me): items below `progress` have results; item `progress` is
//      the one that is lost, those after it run again (they never began);
//   3. after the DONE store but before the dirty bit: the client scans all batches in flight after
//      a death;
//   4. while chaining a result block: Seat.pending names it, and the client frees it if it is not
//      in the chain.
// Design: docs/design/pool.md
#pragma once

#include <optional>

#include "pool/batch.hpp"
#include "pool/doorbell.hpp"
#include "pool/layout.hpp"

namespace shoal::pool {

class WorkerSeat {
 public:
  enum class Wait { work, leave, interrupted };

  // Sits down: EMPTY/STARTING -> READY. The seat must have been given to this process by the agent.
  WorkerSeat(arena::Member& member, Handle pool, uint32_t seat);
  WorkerSeat(const WorkerSeat&) = delete;
  WorkerSeat& operator=(const WorkerSeat&) = delete;

  // Begins to take work (STARTING -> READY); before it the worker initializes itself.
  void ready() noexcept;

  // Waits until there may be work: spins if a spinner's place is free, then sleeps.
  Wait wait() noexcept;

  // Takes a batch from the ring, or enters one that another worker is busy with (`thief`). nullptr:
  // nothing to do.
  bool enter_next() noexcept;
  // Leaves the entered batch, and tells the client what became of it.
  void leave_batch() noexcept;
  [[nodiscard]] bool is_thief() const noexcept { return thief_; }
  [[nodiscard]] const Batch& batch() const noexcept { return batch_; }
  [[nodiscard]] Handle batch_handle() const noexcept { return batch_handle_; }

  struct Claim {
    uint32_t unit;
    uint32_t attempt;
    uint32_t progress;  // items that an earlier attempt has published
  };
  // Claims the next unit of the entered batch: from the front, or from the back as a thief.
  std::optional<Claim> claim() noexcept;

  // Brackets user code: sets what the agent needs to enforce the time limit and cancels.
  void begin_unit(const Claim& claim, int64_t timeout_ns) noexcept;
  void end_unit() noexcept;
  // The reason for which the running unit is to be stopped, or none.
  [[nodiscard]] StopReason stop_reason() const noexcept;

  // Publishes item `item` of the claimed unit: an inline word, or a record made by write_record.
  void publish_item(const Claim& claim, uint32_t item, uint64_t result_word, bool last) noexcept;
  // Ends a unit that was cancelled while it ran: items from `progress` on have no result.
  void publish_cancelled(const Claim& claim, uint32_t progress) noexcept;

  // Writes a result record into a block chained to the batch and returns its result word.
  // `attachments` are owned MEMBER(me) and are given away. Throws MemoryExhausted (nothing
  // published, attachments still mine).
  uint64_t write_record(const std::byte* value, uint64_t size, const Handle* attachments,
                        uint32_t attachment_count, uint32_t flags);

  // Tells the client about published results if it has not been told for a while (or `now`), and
  // asks for help when this batch takes long while others sleep. `ticks` is the present time.
  void notify(uint64_t ticks, bool now = false) noexcept;

  [[nodiscard]] PoolState& pool() const noexcept { return *pool_; }
  [[nodiscard]] Seat& seat() const noexcept { return *seat_; }
  [[nodiscard]] arena::Member& member() const noexcept { return member_; }
  [[nodiscard]] bool should_leave() const noexcept;

 private:
  bool enter(Entry entry) noexcept;
  bool enter_from_ring() noexcept;
  bool enter_as_thief() noexcept;
  bool may_have_work() const noexcept;
  bool spin(uint32_t place) noexcept;
  int take_spinner_place() noexcept;
  std::optional<Claim> try_claim(uint32_t unit) noexcept;
  ResultBlock* block_for(uint64_t extent);
  void chain(Handle handle) noexcept;
  void mark_dirty() noexcept;

  arena::Member& member_;
  PoolState* pool_;
  uint32_t seats_;
  uint32_t spinner_limit_;
  Seat* seat_;
  Doorbell work_bell_;
  Doorbell done_bell_;
  Batch batch_;  // false when none is entered
  Handle batch_handle_ = 0;
  Entry entry_;
  bool thief_ = false;
  bool unsent_ = false;     // results published since the client was told
  uint32_t next_unit_ = 0;  // where claim() looks
  uint32_t last_unit_ = 0;  // and up to where, when not a thief
  uint32_t begun_at_ = 0;   // units before it are still to be looked at
  uint64_t entered_ticks_ = 0;
  uint64_t told_ticks_ = 0;
  uint64_t asked_ticks_ = 0;
  Handle result_block_ = 0;  // current block of the entered batch with room left
  uint32_t steal_from_ = 0;  // seat to look at first
  uint64_t spin_ticks_;      // the constants of worker.cpp in ticks
  uint64_t tell_ticks_;
  uint64_t help_ticks_;
};

}  // namespace shoal::pool
