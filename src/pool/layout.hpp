// SPDX-License-Identifier: Apache-2.0
//
// The layout of a pool in shared memory: its state, its workers' seats, its batches and its
// results.
//
// One *client* (the process that made the pool) submits batches and collects outcomes. *Workers*
// claim units and publish results. One *agent* starts workers, and records how they died. No other
// process touches these structures.
//
// Authoritative words, and who writes them:
//   1. Unit word (one per unit of a batch): QUEUED -> CLAIMED(worker) -> DONE or CANCELLED. The
//      client writes the first QUEUED before the batch is reachable. A unit leaves QUEUED by
//      compare-exchange only. A unit leaves CLAIMED(w) by a store of w, or by a store of the client
//      once w is dead (which may queue the unit again): one writer at a time. `progress` counts the
//      items whose result words are valid.
//   2. Seat.life: which worker has the seat. EMPTY -> STARTING (agent) -> READY (worker) -> DEAD
//      (agent, after wait4; or client, if the agent is dead) -> EMPTY (client, after it has
//      resolved what the dead worker had claimed). The agent goes straight to EMPTY when the fork
//      failed or when the worker left nothing to resolve.
//   3. table[slot]: {generation, block} of the batch that the slot names. A worker may touch a
//      batch only while its Seat.entered names the entry *and* it has read a matching table word
//      after it wrote Seat.entered. The client frees a batch only after it has cleared the table
//      word and then seen no seat that names the entry (both sides seq_cst).
//
// The ring, the list of open batches, the dirty bits, hints and bells only say where to look: after
// a death the client rebuilds them from the words above.
// Design: docs/design/pool.md
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "arena/arena.hpp"
#include "os/atomic.hpp"
#include "os/clock.hpp"
#include "sync/event_count.hpp"

namespace shoal::pool {

using arena::Handle;
using arena::Incarnation;

inline constexpr uint64_t kPoolMagic = 0x32306c6f6f706873;    // "shpool02"
inline constexpr uint64_t kBatchMagic = 0x3130687462687368;   // "hshbth01", in each BatchHeader
inline constexpr uint64_t kResultMagic = 0x3130736572687368;  // in each ResultBlock
// batches in flight at once; more wait in the client
inline constexpr uint32_t kBatchSlots = 4096;
// room to push everything again after a death
inline constexpr uint32_t kRingSlots = 2 * kBatchSlots;
inline constexpr uint32_t kDirtyWords = kBatchSlots / 64;
inline constexpr uint32_t kSpinners = 8;
// places for batches that left the ring with units still to run, and are open to every worker
inline constexpr uint32_t kOpenBatches = 64;
inline constexpr uint32_t kMaxSeats = 2048;
// A pool stops starting workers when the weights of consecutive failed starts reach this sum: three
// starts that failed on their own (an initializer that raises, exits or crashes), or up to 300
// starts that were killed from outside. A killed start weighs more the longer it lasted (three of
// 10 seconds are enough).
inline constexpr uint32_t kStartPatience = 300;
inline constexpr uint32_t kFailedStart = 100;
inline constexpr uint32_t kKilledStart = 1;
inline constexpr int64_t kKilledStartNs = 100'000'000;  // adds 1 to the weight for each

// ---- Unit word ----------------------------------------------------------------------------------
//   63..38 progress: items of the unit whose results are published
//   37..8  short number of the claiming worker (0 unless CLAIMED)
//    7..3  attempt: 0 at first, +1 for each retry
//    2..0  state
// A slot repeats short numbers, but each claim of one unit by another worker has a higher attempt.
// So an exchange of a late member, which expects a claimed word that is over, fails.
enum class UnitState : uint64_t {
  none = 0,     // not yet written; never seen by a worker
  queued = 1,   // anyone may claim it
  claimed = 2,  // a worker runs it
  done = 3,     // all results published
  // cancelled before it ran or while it ran; items from `progress` on have no result
  cancelled = 4,
};
inline constexpr uint32_t kMaxAttempts = 31;
inline constexpr uint32_t kMaxItemsPerUnit = (1u << 26) - 1;

struct Unit {
  UnitState state = UnitState::none;
  uint32_t attempt = 0;
  arena::ShortNumber worker = 0;
  uint32_t progress = 0;

  [[nodiscard]] constexpr uint64_t word() const noexcept {
    return static_cast<uint64_t>(state) | uint64_t{attempt} << 3 | uint64_t{worker} << 8 |
           uint64_t{progress} << 38;
  }
  [[nodiscard]] static constexpr Unit of(uint64_t word) noexcept {
    return {static_cast<UnitState>(word & 7), static_cast<uint32_t>(word >> 3 & 31),
            static_cast<arena::ShortNumber>(word >> 8 & 0x3fffffff),
            static_cast<uint32_t>(word >> 38)};
  }
  [[nodiscard]] constexpr bool final() const noexcept { return state >= UnitState::done; }
};

// ---- Entry: a batch's name in the ring, in Seat.entered and (its generation) in the table -------
//   62..12 generation, never 0    11..0 slot
struct Entry {
  uint64_t value = 0;  // 0 = none
  [[nodiscard]] static constexpr Entry make(uint64_t generation, uint32_t slot) noexcept {
    return {generation * kBatchSlots + slot};
  }
  [[nodiscard]] constexpr uint32_t slot() const noexcept { return value % kBatchSlots; }
  [[nodiscard]] constexpr uint64_t generation() const noexcept { return value / kBatchSlots; }
  [[nodiscard]] constexpr explicit operator bool() const noexcept { return value != 0; }
  friend constexpr bool operator==(Entry, Entry) noexcept = default;
};

// Ring word: an entry, and in bit 63 whether one worker takes the whole batch. If the bit is not
// set, the batch stays at the ring's head until workers have claimed all its units.
inline constexpr uint64_t kForOneWorker = 1ull << 63;
inline constexpr uint64_t ring_word(Entry entry, bool for_one) noexcept {
  return entry.value | (for_one ? kForOneWorker : 0);
}
inline constexpr Entry ring_entry(uint64_t word) noexcept { return {word & ~kForOneWorker}; }

// Table word: 63..34 low 30 bits of the generation, 33..0 block handle / 64. 0 = no batch.
inline constexpr uint64_t table_word(Entry entry, Handle block) noexcept {
  return entry.generation() << 34 | block >> 6;
}
inline constexpr Handle table_block(uint64_t word) noexcept {
  return (word & ((1ull << 34) - 1)) << 6;
}
inline constexpr bool table_matches(uint64_t word, Entry entry) noexcept {
  return word != 0 && word >> 34 == (entry.generation() & 0x3fffffff);
}

// ---- Batch: one block, which the client writes completely before it is reachable ---------------
// [BatchHeader][unit words][argument words][result words][attachment handles][payload]
enum BatchFlags : uint32_t {
  kCallUnits = 1,     // each unit's value is (args, kwargs) or (function, args, kwargs)
  kStarItems = 2,     // items are argument tuples
  kOwnFunction = 4,   // units carry their function; else BatchHeader.function names it
  kChunkUnits = 8,    // a unit's value is a tuple of its items; else an item is its unit's value
  kKeepMessage = 16,  // retries: workers decode copies, the message stays whole
  // A unit is one task: an error ends it, one result record holds the values of all its items, and
  // a death loses all of them. Its `progress` says how many items have ended.
  kWholeUnits = 32
};

// The counts and flags of a batch, fixed when it is made. Plain values: each side works with its
// own copy (class Batch), so another process that overwrites the block later does no harm.
struct BatchShape {
  uint32_t units;
  uint32_t items;           // over all units
  uint32_t items_per_unit;  // the last unit may have fewer
  uint32_t flags;           // BatchFlags
  uint64_t function;        // the pool's number for the function; 0 with kOwnFunction
  // FunctionBlock with the encoded function; the client keeps it while the batch lives
  Handle function_block;
  uint32_t definitions;  // a worker must have applied this many entries of the definitions log
  uint32_t retries;      // how often a unit lost to a death is queued again
  int64_t timeout_ns;    // time limit of a unit once it runs; 0 = none
  uint64_t payload_size;
  uint32_t attachments;
  uint32_t padding;

  [[nodiscard]] uint32_t first_item(uint32_t unit) const noexcept { return unit * items_per_unit; }
  [[nodiscard]] uint32_t item_count(uint32_t unit) const noexcept {
    const uint32_t first = first_item(unit);
    return items - first < items_per_unit ? items - first : items_per_unit;
  }
  // Offsets from the header. The counts determine the parts behind it.
  [[nodiscard]] uint64_t attachments_offset() const noexcept;
  [[nodiscard]] uint64_t payload_offset() const noexcept {
    return attachments_offset() + 8ull * attachments;
  }
  [[nodiscard]] uint64_t extent() const noexcept {
    return payload_offset() + ((payload_size + 7) & ~7ull);
  }
};
static_assert(sizeof(BatchShape) == 64);

struct BatchHeader {
  uint64_t magic;
  uint64_t entry;  // Entry.value under which it was submitted
  BatchShape shape;
  os::Atomic<uint64_t> results;  // Handle of the newest ResultBlock, chained by ResultBlock.next
  os::Atomic<uint32_t> front;    // hint: units before it are claimed
  os::Atomic<uint32_t> back;     // hint: units from it on are claimed (thieves come from the end)
  // Total time of the items run so far: each worker adds its share when it leaves the batch.
  os::Atomic<uint64_t> spent_ticks;
  os::Atomic<uint64_t> spent_items;
  uint64_t spare[2];
};
static_assert(sizeof(BatchHeader) == 128);

inline uint64_t BatchShape::attachments_offset() const noexcept {
  return sizeof(BatchHeader) + 8 * (2ull * units + items);
}

// Argument and result words: the codec's inline words (low three bits not 0), or
//   argument: payload offset << 3;  result: arena offset of a ResultRecord << 3.
// Result words of items without a result.
inline constexpr uint64_t kLostItem = 0;           // the worker died
inline constexpr uint64_t kTimedOutItem = 1 << 3;  // the time limit ran out
// The item has ended, but neither its result nor its error could be stored: memory was exhausted.
inline constexpr uint64_t kUnsentItem = 2 << 3;
inline constexpr bool word_is_offset(uint64_t word) noexcept { return (word & 7) == 0; }
inline constexpr uint64_t offset_word(uint64_t offset) noexcept { return offset << 3; }
inline constexpr uint64_t word_offset(uint64_t word) noexcept { return word >> 3; }

// ---- Results: blocks that a worker chains to the batch; records in them -------------------------
// Invariant: records[0, used) are complete. A record's attachments have the owner BLOCK(this
// block), or the client has taken them.
struct ResultBlock {
  uint64_t magic;
  Handle next;                // older block of the same batch, 0 = last
  os::Atomic<uint64_t> used;  // bytes of records
  uint64_t capacity;          // bytes after this header
  uint64_t has_attachments;   // a record has some; if 0, freeing need not walk the records
  // incarnation of the worker that chains it; written before the batch owns the block
  uint64_t maker;
  uint64_t padding[2];
  std::byte* records() noexcept { return reinterpret_cast<std::byte*>(this + 1); }
};
static_assert(sizeof(ResultBlock) == 64);

enum RecordFlags : uint32_t { kRecordError = 1 };

// followed by the attachment handles, then the encoded value; sized in steps of 8
struct ResultRecord {
  uint32_t attachments;
  uint32_t flags;
  uint64_t size;  // bytes of the encoded value
  Handle* attachment_handles() noexcept { return reinterpret_cast<Handle*>(this + 1); }
  std::byte* value() noexcept {
    return reinterpret_cast<std::byte*>(attachment_handles() + attachments);
  }
  [[nodiscard]] uint64_t extent() const noexcept {
    return sizeof(ResultRecord) + 8ull * attachments + ((size + 7) & ~7ull);
  }
  [[nodiscard]] bool fits(uint64_t room) const noexcept {
    return attachments <= room / 8 && size <= room && extent() <= room;
  }
};
static_assert(sizeof(ResultRecord) == 16);

// An encoded value: a function, the start-up data of workers, or the error of a failed start.
struct FunctionBlock {
  uint64_t size;
  uint32_t attachments;
  uint32_t padding;
  std::byte* bytes() noexcept { return reinterpret_cast<std::byte*>(this + 1); }
};

// One entry of the definitions log. The entries are chained, oldest first.
struct DefinitionBlock {
  os::Atomic<uint64_t> next;
  uint64_t size;
  std::byte* bytes() noexcept { return reinterpret_cast<std::byte*>(this + 1); }
};

// ---- Seat: one worker's record ------------------------------------------------------------------
enum class Life : uint64_t { empty = 0, starting = 1, ready = 2, dead = 3 };
inline constexpr uint64_t life_word(Life life, Incarnation worker) noexcept {
  return static_cast<uint64_t>(life) | worker << 8;
}
inline constexpr Life life_of(uint64_t word) noexcept { return static_cast<Life>(word & 7); }
inline constexpr Incarnation life_worker(uint64_t word) noexcept { return word >> 8; }

enum class StopReason : uint32_t { none = 0, timeout = 1, cancel = 2 };
enum class ExitKind : uint32_t { unknown = 0, planned = 1, initializer_failed = 2 };

struct alignas(128) Seat {
  os::Atomic<uint64_t> life;         // Life, incarnation
  os::Atomic<uint64_t> entered;      // Entry whose memory this worker may touch
  os::Atomic<uint64_t> pending;      // ResultBlock being chained to the entered batch
  os::Atomic<uint64_t> serial;       // counts the units this worker has begun; odd while one runs
  os::Atomic<uint64_t> running;      // unit index in the entered batch, valid while serial is odd
  os::Atomic<int64_t> started_ns;    // when it began (timed or long units only)
  os::Atomic<int64_t> deadline_ns;   // 0 = none
  os::Atomic<uint64_t> stop_serial;  // the agent or client wants the unit with this serial stopped
  os::Atomic<uint32_t> stop_reason;  // StopReason
  os::Atomic<uint32_t> pid;
  os::Atomic<uint32_t> exit_status;  // as wait4 gives it; valid when DEAD
  os::Atomic<uint32_t> exit_kind;    // ExitKind, written by the worker before it leaves on its own
  os::Atomic<uint64_t> peak_memory;  // bytes, ru_maxrss; valid when DEAD
  // 1: a memory limit killed a process of this cgroup when the worker died
  os::Atomic<uint32_t> memory_limit;
  os::Atomic<uint32_t> rank;          // 0, 1, ...: stable while the pool lives
  os::Atomic<int64_t> stop_since_ns;  // when the agent first interrupted stop_serial
  // Entry of the batch that this worker took alone, while other workers may find units in it. The
  // worker sets it; the worker or thief that finds no unit left clears it, or the agent after the
  // worker's death. A hint. It is nonzero only while the seat's bit in PoolState.offering is set.
  os::Atomic<uint64_t> offers;

  // Counters, which only this worker writes, with relaxed loads and stores (docs/design/trace.md).
  alignas(128) os::Atomic<uint64_t> units_done;
  os::Atomic<uint64_t> items_done;
  os::Atomic<uint64_t> busy_ticks;  // running user code
  os::Atomic<uint64_t> decode_ticks;
  os::Atomic<uint64_t> encode_ticks;
  os::Atomic<uint64_t> wait_ticks;  // waiting for work
  os::Atomic<uint64_t> bytes_in;
  os::Atomic<uint64_t> bytes_out;
  os::Atomic<uint64_t> batches;
  os::Atomic<uint64_t> steals;  // units taken from another worker's batch
  os::Atomic<uint64_t> sleeps;  // waits that went to the kernel
  os::Atomic<uint64_t> errors;
  os::Atomic<uint64_t> begun_ticks;  // when the unit that runs began
  // The client's request to stop the unit that this worker has claimed. The client cannot know
  // whether the unit has begun, so the agent polls until the unit runs or the worker has left the
  // batch.
  os::Atomic<uint64_t> stop_entry;  // the batch, written last; 0: no request
  os::Atomic<uint64_t> stop_unit;   // StopReason << 32 | unit index
  uint64_t reserved[1];

  // Called before the seat becomes EMPTY: clears what the next worker must not see. The counters
  // keep their values.
  void forget_worker() noexcept {
    entered.store(0);
    offers.store(0);
    serial.store(0);
    stop_serial.store(0);
    stop_entry.store(0);
    deadline_ns.store(0);
    stop_since_ns.store(0);
    exit_kind.store(0);
    pid.store(0);
  }
};
static_assert(sizeof(Seat) == 256);

// ---- Pool state ---------------------------------------------------------------------------------
enum class Phase : uint32_t { running = 0, draining = 1, stopping = 2 };

struct PoolState {
  uint64_t magic;
  uint64_t client;  // incarnation
  uint32_t seats;
  os::Atomic<uint32_t> target;  // workers wanted
  // Phase; draining: leave when the ring is empty; stopping: leave now
  os::Atomic<uint32_t> phase;
  os::Atomic<uint32_t> death_epoch;    // +1 per recorded death
  os::Atomic<uint32_t> failed_starts;  // weight of failed starts in a row
  os::Atomic<uint64_t> failure;        // FunctionBlock with the encoded error of a failed start
  // FunctionBlock: what a worker needs to start (initializer ...)
  os::Atomic<uint64_t> startup;
  os::Atomic<uint64_t> definitions;  // first DefinitionBlock
  os::Atomic<uint32_t> definition_count;
  os::Atomic<uint32_t> units_per_worker;  // maxtasksperchild; 0 = no limit
  os::Atomic<int64_t> agent_wakes_ns;     // when the agent will look at deadlines next
  os::Atomic<int64_t> grace_ns;           // between interrupting a unit and killing its worker
  // Until this time (in ticks) one idle worker, the lookout, polls for units that a busy worker
  // offers. 0, or a time that has passed: there is no lookout.
  os::Atomic<uint64_t> lookout;
  // bit 0: `open` may have entries; 63..1: how often bit 0 was set
  os::Atomic<uint64_t> any_open;
  // Workers ring hunger_bell when fewer batches than low_water are queued: the client then sends
  // more input. 0: the client has nothing more to send.
  os::Atomic<uint32_t> low_water;
  sync::EventCount hunger_bell;  // the client prepares, workers notify

  alignas(128) os::Atomic<uint64_t> ring_tail;  // client
  alignas(128) os::Atomic<uint64_t> ring_head;  // workers
  alignas(128) sync::EventCount work_bell;      // workers prepare; any member of the pool notifies
  uint32_t spinner_limit;
  // Until this time (in ticks) a worker spins for work in this place, and other members rely on it.
  // 0, or a time that has passed: the place is free. So other members soon stop relying on a
  // spinner that is stopped or killed.
  os::Atomic<uint64_t> spinners[kSpinners];
  alignas(128) sync::EventCount done_bell;               // the client listens, workers advance
  os::Atomic<uint64_t> dirty_summary;                    // bit i: dirty[i] may be non-zero
  alignas(128) os::Atomic<uint64_t> dirty[kDirtyWords];  // bit = slot with news for the client
  os::Atomic<uint64_t> table[kBatchSlots];
  os::Atomic<uint64_t> ring[kRingSlots];
  // Entries that left the ring and are open to any worker: the worker that took the batch is gone,
  // or the batch takes longer than expected. 0 = free place. A worker that finds no unit left in an
  // open batch clears its place.
  os::Atomic<uint64_t> open[kOpenBatches];
  // Bit i: the worker in seat i may offer a batch. Changed by that worker or, after its death, by
  // the member that records the death.
  alignas(128) os::Atomic<uint64_t> offering[kMaxSeats / 64];

  // Does a worker spin that will see what was published before this call? `limit`: number of
  // spinner places in use.
  [[nodiscard]] bool anyone_spins(uint32_t limit) const noexcept {
    for (uint32_t i = 0; i < limit; ++i) {
      const uint64_t until = spinners[i].load();
      if (until != 0 && until > os::ticks()) return true;
    }
    return false;
  }

  // Wakes a sleeping worker if there are units that no worker has begun. For periodic checks: the
  // worker that was woken for these units, or the spinner that was relied on, may be stopped.
  void wake_for_waiting_units(uint32_t limit) noexcept {
    const bool waiting = ring_head.load() != ring_tail.load() || (any_open.load() & 1) != 0;
    if (waiting || anyone_offers(limit)) work_bell.notify_one();
  }

  // The worker in this seat is about to offer a batch, or no longer offers one.
  void begin_offering(uint32_t index) noexcept {
    offering[index / 64].fetch_or(uint64_t{1} << index % 64);
  }
  void end_offering(uint32_t index) noexcept {
    seat(index)->offers.store(0);
    offering[index / 64].fetch_and(~(uint64_t{1} << index % 64));
  }
  // The first seat in [from, limit) whose worker may offer a batch; `limit` if there is none. An
  // idle worker checks only these seats, so its search costs little in a pool of any size.
  [[nodiscard]] uint32_t next_offering(uint32_t from, uint32_t limit) const noexcept {
    while (from < limit) {
      const uint64_t bits = offering[from / 64].load() >> from % 64;
      if (bits != 0) return std::min(limit, from + static_cast<uint32_t>(std::countr_zero(bits)));
      from = (from / 64 + 1) * 64;
    }
    return limit;
  }
  [[nodiscard]] bool anyone_offers(uint32_t limit) noexcept {
    for (uint32_t i = 0; (i = next_offering(i, limit)) < limit; ++i) {
      if (seat(i)->offers.load() != 0 && life_of(seat(i)->life.load()) == Life::ready) return true;
    }
    return false;
  }

  Seat* seat(uint32_t index) noexcept { return reinterpret_cast<Seat*>(this + 1) + index; }
  [[nodiscard]] static uint64_t bytes_for(uint32_t seats) noexcept {
    return sizeof(PoolState) + uint64_t{seats} * sizeof(Seat);
  }
  // `seats`, but no more than the pool's block has room for. Each side asks once, when it opens the
  // pool, and keeps the answer.
  [[nodiscard]] static uint32_t seats_of(const arena::Arena& arena, Handle pool) noexcept {
    const uint64_t size = arena.block_size(pool);
    if (size < sizeof(PoolState)) return 0;
    const uint64_t room = (size - sizeof(PoolState)) / sizeof(Seat);
    const uint32_t seats = arena.at<PoolState>(pool)->seats;
    return seats < room ? seats : static_cast<uint32_t>(room);
  }
};
static_assert(kDirtyWords == 64, "dirty_summary has one bit for each dirty word");
static_assert(sizeof(PoolState) % alignof(Seat) == 0);

}  // namespace shoal::pool
