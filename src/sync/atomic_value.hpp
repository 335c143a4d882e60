// SPDX-License-Identifier: Apache-2.0
//
// AtomicValue: one number shared by members, changed without a lock, that members can wait on. Any
// thread of any member may call it. A change never sleeps; without waiters it costs one
// read-modify-write and one load. Nothing allocates or throws after construction.
//
// AtomicState:  bits     the value: int64, uint64, the bits of a double, or 0 and 1
//               waiters  EventCount: its epoch changes with each change of the value that finds
//                        waiters
//               kind     the type of `bits`; fixed at creation
// Invariants:
// 1. Each change is one read-modify-write of `bits`: killed before it, nothing happened; after it,
//    it is done. Sums wrap around.
// 2. A waiter sets the bit in `waiters` before it looks at `bits` (sync/wait.hpp). When a member is
//    killed between a change and its wake-up, no reaper wakes the waiters: they look at `bits`
//    again after at most 250 ms.
// Design: docs/design/sync.md
#pragma once

#include <cstdint>

#include "arena/arena.hpp"
#include "os/atomic.hpp"
#include "sync/event_count.hpp"
#include "sync/wait.hpp"

namespace shoal::sync {

enum class ValueKind : uint32_t { int64, uint64, float64, boolean };

struct alignas(64) AtomicState {
  os::Atomic<uint64_t> bits;
  EventCount waiters;
  uint32_t magic;
  uint32_t kind;
  uint32_t padding[7];
  uint64_t record[2];  // of the shared block (arena/record.hpp)
};
static_assert(sizeof(AtomicState) == 64);

class AtomicValue {
 public:
  static constexpr uint32_t kMagic = 0x6d6f7461;  // "atom"

  static void create(arena::Arena& arena, arena::Handle handle, ValueKind kind,
                     uint64_t bits) noexcept;
  // Throws CorruptArena if there is no atomic value at `handle`.
  AtomicValue(arena::Arena& arena, arena::Handle handle);
  // Skips the checks: the caller holds the block and has checked it before.
  explicit AtomicValue(AtomicState& known) noexcept : state_(&known) {}

  [[nodiscard]] ValueKind kind() const noexcept { return static_cast<ValueKind>(state_->kind); }
  [[nodiscard]] uint64_t load() const noexcept { return state_->bits.load(); }
  // These return the previous value.
  uint64_t exchange(uint64_t bits) noexcept;
  uint64_t add(uint64_t operand) noexcept;  // for int64 and uint64; a negative int64 subtracts
  uint64_t add_double(uint64_t operand) noexcept;
  uint64_t raise_to(uint64_t operand) noexcept;  // stores the larger of value and operand
  uint64_t lower_to(uint64_t operand) noexcept;
  // Compares bits. On failure `expected` becomes the value found.
  bool compare_exchange(uint64_t& expected, uint64_t desired) noexcept;

  // ok: the value differs from `seen`, or was changed or notify() called during the wait.
  [[nodiscard]] WaitResult wait(uint64_t seen, int64_t deadline_ns) const noexcept;
  // The same, but since `first` = listen(). A wait that is made in several calls takes `first`
  // once, so that it also sees what happens between two of them.
  [[nodiscard]] uint32_t listen() const noexcept { return state_->waiters.prepare(); }
  [[nodiscard]] WaitResult wait(uint64_t seen, uint32_t first, int64_t deadline_ns) const noexcept;
  void notify() noexcept { state_->waiters.wake_all(); }
  uint32_t waiting_for_test() const noexcept { return state_->waiters.word().load() & 1; }

 private:
  [[nodiscard]] bool less(uint64_t a, uint64_t b) const noexcept;
  template <class Change>
  uint64_t change(Change&& change) noexcept;

  AtomicState* state_;
};

}  // namespace shoal::sync
